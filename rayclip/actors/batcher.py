"""Full batches out of chunks from anywhere: one queue, one thread that fills them, one model."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
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

    @property
    def passes_at_once(self) -> int:
        """How many calls of ``encode_image`` may run side by side."""
        ...

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


class _Chunk:
    """Frames that came together, and their features as they are made, in any order."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self.future: Future[Features] = Future()
        self.taken = 0
        self._features: Features | None = None
        self._missing = len(frames)

    def take(self, most: int) -> _Piece:
        piece = _Piece(self, self.taken, self.frames[self.taken : self.taken + most])
        self.taken += len(piece.frames)
        return piece

    def add(self, start: int, features: Features) -> None:
        if self._features is None:
            self._features = np.empty((len(self.frames), features.shape[1]), np.float32)
        self._features[start : start + len(features)] = features
        self._missing -= len(features)
        if not self._missing and not self.future.done():
            self.future.set_result(self._features)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(frozen=True)
class _Piece:
    """Some frames of a chunk, on their way through one forward pass."""

    chunk: _Chunk
    start: int
    frames: Frames


class Batcher:
    """Encodes chunks of frames in batches that are filled across all chunks at hand.

    The model is loaded on the batching thread, so that callers can go on meanwhile. Batches are
    made of chunks in the order in which they came, and only when a forward pass is free for them.
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
        self._results = threading.Lock()
        self.ready: Future[ImageModel] = Future()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, frames: Frames) -> Future[Features]:
        """Queue uint8 ``[n, n_px, n_px, 3]`` with n >= 1; gives float32 ``[n, D]`` later."""
        chunk = _Chunk(frames)
        self._queue.put(chunk)
        return chunk.future

    @property
    def stats(self) -> BatchStats:
        return self._stats

    def close(self) -> None:
        """Encode what is queued, then end the threads."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            model = self._load()
        except Exception as error:
            self.ready.set_exception(error)
            while (chunk := self._queue.get()) is not None:
                chunk.fail(error)
            return
        self.ready.set_result(model)
        free = threading.Semaphore(model.passes_at_once)
        with ThreadPoolExecutor(model.passes_at_once, thread_name_prefix="pass") as passes:
            while True:
                free.acquire()
                pieces = self._next_batch(model.batch_size)
                if not pieces:
                    return
                forward = passes.submit(self._encode, model, pieces)
                forward.add_done_callback(lambda _: free.release())

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
            pieces.append(self._current.take(room))
            room -= len(pieces[-1].frames)
            if self._current.taken == len(self._current.frames):
                self._current = None
        return pieces

    def _encode(self, model: ImageModel, pieces: list[_Piece]) -> None:
        pieces = [piece for piece in pieces if not piece.chunk.future.done()]
        if not pieces:
            return
        frames = np.concatenate([piece.frames for piece in pieces])
        started = time.perf_counter()
        try:
            features = model.encode_image(frames)
            if len(features) != len(frames):
                raise RuntimeError(f"{len(features)} features came for {len(frames)} frames")
        except Exception as error:
            if len(pieces) > 1:  # one chunk may be at fault: the others must not suffer
                for piece in pieces:
                    self._encode(model, [piece])
            else:
                with self._results:
                    pieces[0].chunk.fail(error)
            return
        busy_s = time.perf_counter() - started
        ends = np.cumsum([len(piece.frames) for piece in pieces])[:-1]
        with self._results:
            self._stats += BatchStats(1, len(frames), model.batch_size, len(pieces) > 1, busy_s)
            for piece, part in zip(pieces, np.split(features, ends), strict=True):
                piece.chunk.add(piece.start, part)
