"""What turns videos into results, with or without Ray, as a run sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from rayclip.model.load_stage import LoadStage
from rayclip.model.zeroshot import ZeroShot
from rayclip.report.results import VideoResult
from rayclip.report.run_stats import RunState

ShowPhase = Callable[[str | LoadStage], object]
"""Shows what is awaited from now on."""


class Machine(Protocol):
    """Turns videos into results.

    Attributes:
        description: devices, encoders and decoding tasks, for the first line of a run.
        zero_shot: the texts that frames are compared with; None without texts.
        results: one for each video, as they finish.
    """

    description: str
    zero_shot: ZeroShot | None
    results: Iterator[VideoResult]

    def state(self) -> RunState | None:
        """Return the progress; None if it is not known at the moment."""
        ...

    def stall_reason(self) -> str:
        """Say what the run waits for."""
        ...

    def wait_until_up(self) -> None:
        """Wait until an encoder is up.

        Raises:
            RunStopped: no encoder can start.
        """
        ...
