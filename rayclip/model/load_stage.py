"""What this process is doing while it loads a model, for whoever shows it meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial


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


_stages: dict[int, LoadStage] = {}
"""Thread -> its innermost stage. A process with several devices loads on several threads."""


def current_stage() -> LoadStage | None:
    """Return the stage of the thread that began first; None if this process loads no model."""
    stages = [*_stages.values()]
    return stages[0] if stages else None


@contextmanager
def stage(text: str) -> Iterator[None]:
    """Mark a block as a stage; stages in it replace it meanwhile."""
    thread = threading.get_ident()
    before = _stages.get(thread)
    _stages[thread] = LoadStage(text)
    try:
        yield
    finally:
        if before is None:
            del _stages[thread]
        else:
            _stages[thread] = before


def report_bytes(done: int, total: int) -> None:
    """Record how many bytes of this thread's stage are transferred.

    Args:
        done: bytes so far.
        total: of all bytes; 0 if unknown.
    """
    _report(threading.get_ident(), done, total)


def bytes_reporter() -> Callable[[int, int], None]:
    """Return what :func:`report_bytes` is here, for a library that calls it on other threads."""
    return partial(_report, threading.get_ident())


def _report(thread: int, done: int, total: int) -> None:
    if thread in _stages:
        _stages[thread] = LoadStage(_stages[thread].text, done, total)
