"""Full batches out of chunks from anywhere: one queue, one thread, one model."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

LINGER_S = 0.5
"""How long a batch that is not full waits for one more chunk: longer than a decoding task needs for
64 frames, so that only the end of a run, where nothing more comes, pays for padding."""

Frames = NDArray[np.uint8]
Features = NDArray[np.float32]


class ImageModel(Protocol):
    """What a batcher drives: a model with forward passes of one fixed shape."""

    @property
    def batch_size(self) -> int: ...

    def encode_image(self, images: Frames) -> Features: ...


@dataclass(frozen=True)
class BatchStats:
    """What an encoder did so far.

    Attributes:
        batches: forward passes.
        frames: frames in them, padding not counted.
        capacity: frames that they had room for.
        mixed: forward passes that took frames of more than one chunk.
        busy_s: seconds spent in them.
    """

    batches: int = 0
    frames: int = 0
    capacity: int = 0
    mixed: int = 0
    busy_s: float = 0.0

    def __add__(self, other: BatchStats) -> BatchStats:
        return BatchStats(
            self.batches + other.batches,
            self.frames + other.frames,
            self.capacity + other.capacity,
            self.mixed + other.mixed,
            self.busy_s + other.busy_s,
        )

    @property
    def fill(self) -> float:
        """Share of the room in the batches that real frames took, 0 to 1."""
        return self.frames / self.capacity if self.capacity else 0.0


@dataclass
class _Chunk:
    frames: Frames
    features: list[Features]
    future: Future[Features]
    taken: int = 0


@dataclass(frozen=True)
class _Piece:
    """Some frames of a chunk, on their way through one forward pass."""

    chunk: _Chunk
    frames: Frames


class Batcher:
    """Encodes chunks of frames in batches that are filled across all chunks at hand.

    The model is loaded on the batching thread, so that callers can go on meanwhile. Chunks are
    encoded in the order in which they came.
    """

    def __init__(self, load: Callable[[], ImageModel], linger_s: float = LINGER_S) -> None:
        """Start loading the model.

        Args:
            load: makes the model; what it raises, every ``submit`` gives.
            linger_s: see :data:`LINGER_S`.
        """
        self._load = load
        self._linger_s = linger_s
        self._queue: queue.SimpleQueue[_Chunk | None] = queue.SimpleQueue()
        self._current: _Chunk | None = None
        self._stats = BatchStats()
        self.ready: Future[ImageModel] = Future()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, frames: Frames) -> Future[Features]:
        """Queue uint8 ``[n, n_px, n_px, 3]`` with n >= 1; gives float32 ``[n, D]`` later."""
        chunk = _Chunk(frames, [], Future())
        self._queue.put(chunk)
        return chunk.future

    @property
    def stats(self) -> BatchStats:
        return self._stats

    def close(self) -> None:
        """Encode what is queued, then end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            model = self._load()
        except BaseException as error:
            self.ready.set_exception(error)
            while (chunk := self._queue.get()) is not None:
                chunk.future.set_exception(error)
            return
        self.ready.set_result(model)
        while pieces := self._next_batch(model.batch_size):
            self._encode(model, pieces)

    def _next_batch(self, batch_size: int) -> list[_Piece]:
        """Wait for work; returns nothing once the batcher is closed."""
        pieces: list[_Piece] = []
        room = batch_size
        while room:
            if self._current is None:
                try:
                    self._current = self._queue.get(timeout=self._linger_s if pieces else None)
                except queue.Empty:
                    break
            if self._current is None:
                if pieces:
                    self._queue.put(None)
                break
            chunk = self._current
            frames = chunk.frames[chunk.taken : chunk.taken + room]
            pieces.append(_Piece(chunk, frames))
            chunk.taken += len(frames)
            room -= len(frames)
            if chunk.taken == len(chunk.frames):
                self._current = None
        return pieces

    def _encode(self, model: ImageModel, pieces: list[_Piece]) -> None:
        pieces = [piece for piece in pieces if not piece.chunk.future.done()]
        if not pieces:
            return
        try:
            features = self._forward(model, pieces)
        except Exception as error:
            if len(pieces) == 1:
                pieces[0].chunk.future.set_exception(error)
            else:  # one chunk may be at fault: the others must not suffer
                for piece in pieces:
                    self._encode(model, [piece])
            return
        start = 0
        for piece in pieces:
            end = start + len(piece.frames)
            chunk = piece.chunk
            chunk.features.append(features[start:end])
            start = end
            if sum(map(len, chunk.features)) == len(chunk.frames):
                chunk.future.set_result(np.concatenate(chunk.features))

    def _forward(self, model: ImageModel, pieces: list[_Piece]) -> Features:
        frames = np.concatenate([piece.frames for piece in pieces])
        start = time.perf_counter()
        features = model.encode_image(frames)
        busy_s = time.perf_counter() - start
        self._stats += BatchStats(1, len(frames), model.batch_size, len(pieces) > 1, busy_s)
        return features
