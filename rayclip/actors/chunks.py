"""Chunks that wait in an encoder for their features, and the slices of them that fill batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from rayclip.actors.messages import Chunk, Features, Frame


class QueuedChunk:
    """A chunk and its features as they are made, in any order.

    Attributes:
        chunk: the frames.
        is_suspect: a process of this encoder died with it: it shares no forward pass.
        future: gives the features.
        taken: frames that are in batches.
    """

    def __init__(self, chunk: Chunk, is_suspect: bool) -> None:
        self.chunk = chunk
        self.is_suspect = is_suspect
        self.future: Future[Features] = Future()
        self.taken = 0
        self._features: Features | None = None
        self._missing = len(chunk.frames)

    def take(self, max_frames: int) -> BatchSlice:
        """The next frames, for a batch."""
        frames = self.chunk.frames[self.taken : self.taken + max_frames]
        part = BatchSlice(self, self.taken, frames)
        self.taken += len(frames)
        return part

    def add(self, start: int, features: Features) -> None:
        """Keep the features of frames from ``start`` on."""
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
    """Consecutive frames of a chunk that go through one forward pass.

    Attributes:
        queued: the chunk.
        start: position of the first frame.
        frames: uint8 ``[n_px, n_px, 3]`` each.
    """

    queued: QueuedChunk
    start: int
    frames: list[Frame]

    def split(self, at: int) -> tuple[BatchSlice, BatchSlice]:
        rest = BatchSlice(self.queued, self.start + at, self.frames[at:])
        return BatchSlice(self.queued, self.start, self.frames[:at]), rest


def in_batches(slices: Iterable[BatchSlice], size: int) -> Iterator[list[BatchSlice]]:
    """Slices in batches of at most this many frames."""
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
