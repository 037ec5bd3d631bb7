"""Chunks that an encoder has queued, and the slices of them that fill batches."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum, auto

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


class Signal(Enum):
    """What may be put into a backlog besides chunks."""

    FLUSH = auto()
    CLOSE = auto()


class Backlog:
    """Chunks that wait to be encoded, in the order in which they came. One thread takes them."""

    def __init__(self, linger_s: float) -> None:
        """Begin empty.

        Args:
            linger_s: how long a batch that is not full waits for one more chunk.
        """
        self._linger_s = linger_s
        self._queue: queue.SimpleQueue[QueuedChunk | Signal] = queue.SimpleQueue()
        self._chunks: deque[QueuedChunk] = deque()  # from the queue, and not all in batches
        self._flushed = 0  # how many of them, the oldest, wait for no others
        self._is_closed = False

    def put(self, chunk: QueuedChunk) -> None:
        """Add a chunk, from any thread."""
        self._queue.put(chunk)

    def flush(self) -> None:
        """Let the chunks so far wait for no others: somebody waits for them."""
        self._queue.put(Signal.FLUSH)

    def close(self) -> None:
        """Add nothing more."""
        self._queue.put(Signal.CLOSE)

    def fail(self, error: Exception) -> None:
        """Fail every chunk until the backlog is closed."""
        while (chunk := self._queue.get()) is not Signal.CLOSE:
            if isinstance(chunk, QueuedChunk):
                chunk.fail(error)

    def wait(self, batch_size: int) -> bool:
        """Wait until there are frames for a batch, or for some frames and no more for a while;
        return whether there are any: there are none once the backlog is closed."""
        while self._has_room(batch_size) and not self._flushed:
            try:
                self._take(self._queue.get(timeout=self._linger_s if self._chunks else None))
            except queue.Empty:
                break
        return bool(self._chunks)

    @property
    def begins_with_suspect(self) -> bool:
        """Whether the next batch has frames that may have ended a process, and no others."""
        return bool(self._chunks) and self._chunks[0].is_suspect

    def next_batch(self, batch_size: int) -> list[BatchSlice]:
        """Return the slices of a batch, as full as it can be without waiting."""
        while self._has_room(batch_size) and not self._queue.empty():
            self._take(self._queue.get())
        slices: list[BatchSlice] = []
        while batch_size and self._chunks:
            chunk = self._chunks[0]
            if slices and (chunk.is_suspect or slices[0].queued.is_suspect):
                break
            slices.append(chunk.take(batch_size))
            batch_size -= len(slices[-1].frames)
            if chunk.taken == len(chunk.chunk.frames):
                self._chunks.popleft()
                self._flushed = max(0, self._flushed - 1)
        return slices

    def _has_room(self, batch_size: int) -> bool:
        """Whether the next batch could have more frames than there are."""
        if self._is_closed or self.begins_with_suspect:
            return False
        frames = 0
        for chunk in self._chunks:
            frames += len(chunk.chunk.frames) - chunk.taken
            if chunk.is_suspect or frames >= batch_size:
                return False
        return True

    def _take(self, item: QueuedChunk | Signal) -> None:
        if isinstance(item, QueuedChunk):
            self._chunks.append(item)
        elif item is Signal.CLOSE:
            self._is_closed = True
        else:
            self._flushed = len(self._chunks)
