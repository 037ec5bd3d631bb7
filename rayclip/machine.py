"""What turns videos into results, on Ray or without it, as a run sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from rayclip.model.zeroshot import ZeroShot
from rayclip.report.results import VideoResult
from rayclip.report.run_stats import RunState


class Machine(Protocol):
    """Videos being turned into results.

    Attributes:
        description: devices, encoders and decoding tasks, for the first line of a run.
        zero_shot: the texts that frames are compared with; None without texts.
        results: one for each video, as they are finished.
    """

    description: str
    zero_shot: ZeroShot | None
    results: Iterator[VideoResult]

    def state(self) -> RunState | None:
        """How far it is; None if that cannot be told just now."""
        ...

    def stall_reason(self) -> str:
        """What it waits for, in words."""
        ...

    def wait_until_up(self) -> None:
        """Return when an encoder is up.

        Raises:
            RunStopped: none can start.
        """
        ...
