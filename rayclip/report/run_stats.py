"""The progress of a run and the statistics of its encoders."""

from __future__ import annotations

from dataclasses import dataclass

from rayclip.model.load_stage import LoadStage


@dataclass(frozen=True)
class BatchStats:
    """What one encoder, or several together, did so far.

    Attributes:
        batches: forward passes.
        frames: frames in them, without padding.
        capacity: frames that would have filled them.
        mixed: forward passes with frames of more than one chunk.
        busy_s: seconds spent in forward passes, summed over concurrent ones.
        room_s: seconds available since the first one began, times the passes that may run at once.
        wall_s: seconds since the first one began.
        notes: messages for the user, one line each.
        host: the last node of the encoder; empty if it does not matter.
        loading: what an encoder without a model is doing to get it; None if it is not known.
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
    loading: LoadStage | None = None

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
            other.loading or self.loading,
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
            self.loading,
        )

    @property
    def busy(self) -> float:
        """Share of the time in which the device was busy, 0 to 1."""
        return min(1.0, self.busy_s / self.room_s) if self.room_s else 0.0

    @property
    def fill(self) -> float:
        """Share of the batches' capacity that real frames filled, 0 to 1."""
        return self.frames / self.capacity if self.capacity else 0.0


@dataclass(frozen=True)
class RunState:
    """The progress of a run, as last reported.

    Attributes:
        done: videos finished.
        failed: videos that failed.
        frames: features of the finished videos.
        encoders: statistics of each encoder, across its restarts.
        waiting: frames outstanding at each encoder.
        placed: encoders that Ray placed on a node.
        up: encoders that respond and have loaded their model.
        ended_tars: tar files that were read, if the inputs are such files.
    """

    done: int
    failed: int
    frames: int
    encoders: tuple[BatchStats, ...]
    waiting: tuple[int, ...]
    placed: int
    up: int
    ended_tars: int = 0

    @property
    def total(self) -> BatchStats:
        """The statistics of all encoders together."""
        return sum(self.encoders, BatchStats())
