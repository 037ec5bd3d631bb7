"""How far a run is, as its control actor tells it."""

from __future__ import annotations

from dataclasses import dataclass

from rayclip.report.batch_stats import BatchStats


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Attributes:
        done: videos finished.
        failed: videos given up.
        frames: features of the finished ones.
        encoders: what each encoder did, over all its lives.
        waiting: frames that are with each encoder.
        placed: encoders for which there was room on a node.
        up: encoders that answer and have their model.
    """

    done: int
    failed: int
    frames: int
    encoders: tuple[BatchStats, ...]
    waiting: tuple[int, ...]
    placed: int
    up: int
