"""Chunks that an encoder has queued, and the slices of them that fill batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from rayclip.actors.messages import Chunk, Features, Frame


class QueuedChunk:
    """A chunk whose features arrive piecewise, in any order.

    Attributes:
        chunk: the frames.
        is_suspect: whether a process of this encoder died with it; then it shares no forward pass.
        future: of the features.
        taken: number of frames that are in batches.
    """

    def __init__(self, chunk: Chunk, is_suspect: bool) -> None:
        self.chunk = chunk
        self.is_suspect = is_suspect
        self.future: Future[Features] = Future()
        self.taken = 0
        self._features: Features | None = None
        self._missing = len(chunk.frames)

    def take(self, max_frames: int) -> BatchSlice:
        """Take the next frames for a batch."""
        frames = self.chunk.frames[self.taken : self.taken + max_frames]
        part = BatchSlice(self, self.taken, frames)
        self.taken += len(frames)
        return part

    def add(self, start: int, features: Features) -> None:
        """Store the features of the frames from ``start`` on."""
        if self._features is None:
            self._features = np.empty((len(self.chunk.frames), features.shape[1]), np.float32)
        self._features[start : start + len(features)] = features
        self._missing -= len(features)
        if not self._missing and not self.future.done():
            self.future.set_result(self._features)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(frozen=True)
class BatchSlice:
    """Consecutive frames of a chunk in one forward pass.

    Attributes:
        queued: the chunk.
        start: position of the first frame in the chunk.
        frames: uint8 ``[n_px, n_px, 3]`` each.
    """

    queued: QueuedChunk
    start: int
    frames: list[Frame]

    def split(self, at: int) -> tuple[BatchSlice, BatchSlice]:
        rest = BatchSlice(self.queued, self.start + at, self.frames[at:])
        return BatchSlice(self.queued, self.start, self.frames[:at]), rest


def in_batches(slices: Iterable[BatchSlice], size: int) -> Iterator[list[BatchSlice]]:
    """Split slices into batches of at most ``size`` frames."""
    batch: list[BatchSlice] = []
    room = size
    for part in slices:
        while part.frames:
            head, part = part.split(room)
            batch.append(head)
            room -= len(head.frames)
            if not room:
                yield batch
                batch, room = [], size
    if batch:
        yield batch
