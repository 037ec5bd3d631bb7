"""What turns videos into results, on Ray or without it, as a run sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rayclip.model.zeroshot import ZeroShot
from rayclip.report.batch_stats import BatchStats
from rayclip.report.progress import Counts
from rayclip.report.results import VideoResult


@dataclass(frozen=True)
class Machine:
    """Videos being turned into results.

    Attributes:
        description: devices, encoders and decoding tasks, for the first line of a run.
        zero_shot: the texts that frames are compared with, where they are.
        results: one for each video, as they are finished.
        counts: how far it is; None where that cannot be told just now.
        awaited: what it waits for, in words.
        work: what each encoder did.
        wait_until_up: returns when an encoder is up; raises RunStopped where none can start.
    """

    description: str
    zero_shot: ZeroShot | None
    results: Iterator[VideoResult]
    counts: Callable[[], Counts | None]
    awaited: Callable[[], str]
    work: Callable[[], Sequence[BatchStats]]
    wait_until_up: Callable[[], object]
