"""How far a run is, and what its encoders did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchStats:
    """What an encoder did so far.

    Attributes:
        batches: forward passes.
        frames: frames in them, padding not counted.
        capacity: frames that they had room for.
        mixed: forward passes that took frames of more than one chunk.
        busy_s: seconds spent in them.
        room_s: seconds that could have been spent in them since the first one began, by all that
            may run side by side.
        wall_s: seconds since the first one began.
        notes: what happened that the user should know, a line each.
        host: where it was last; empty where that is no question.
    """

    batches: int = 0
    frames: int = 0
    capacity: int = 0
    mixed: int = 0
    busy_s: float = 0.0
    room_s: float = 0.0
    wall_s: float = 0.0
    notes: tuple[str, ...] = ()
    host: str = ""

    def __add__(self, other: BatchStats) -> BatchStats:
        return BatchStats(
            self.batches + other.batches,
            self.frames + other.frames,
            self.capacity + other.capacity,
            self.mixed + other.mixed,
            self.busy_s + other.busy_s,
            self.room_s + other.room_s,
            self.wall_s + other.wall_s,
            self.notes + other.notes,
            other.host or self.host,
        )

    def __sub__(self, before: BatchStats) -> BatchStats:
        return BatchStats(
            self.batches - before.batches,
            self.frames - before.frames,
            self.capacity - before.capacity,
            self.mixed - before.mixed,
            self.busy_s - before.busy_s,
            self.room_s - before.room_s,
            self.wall_s - before.wall_s,
            self.notes[len(before.notes) :],
            self.host,
        )

    @property
    def busy(self) -> float:
        """Share of the time in which the device was at work, 0 to 1."""
        return min(1.0, self.busy_s / self.room_s) if self.room_s else 0.0

    @property
    def fill(self) -> float:
        """Share of the room in the batches that real frames took, 0 to 1."""
        return self.frames / self.capacity if self.capacity else 0.0


@dataclass(frozen=True)
class RunState:
    """How far a run is, as far as it was heard of.

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

    @property
    def total(self) -> BatchStats:
        """What all encoders did together."""
        return sum(self.encoders, BatchStats())
