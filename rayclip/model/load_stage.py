"""What this process is doing while it loads a model, for whoever shows it meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class LoadStage:
    """A stage of loading a model.

    Attributes:
        text: what is being done.
        done: bytes transferred so far; 0 if no bytes are.
        total: bytes to transfer; 0 if unknown.
    """

    text: str
    done: int = 0
    total: int = 0


class _Process:
    """The stage of this process, which loads one model at a time; None if it loads none."""

    stage: LoadStage | None = None


def current_stage() -> LoadStage | None:
    """Return the stage that this process is in; None if it loads no model."""
    return _Process.stage


@contextmanager
def stage(text: str) -> Iterator[None]:
    """Mark a block as a stage; stages in it replace it meanwhile."""
    before = _Process.stage
    _Process.stage = LoadStage(text)
    try:
        yield
    finally:
        _Process.stage = before


def report_bytes(done: int, total: int) -> None:
    """Record how many bytes of the current stage are transferred.

    Args:
        done: bytes so far.
        total: of all bytes; 0 if unknown.
    """
    if _Process.stage is not None:
        _Process.stage = LoadStage(_Process.stage.text, done, total)
