"""Full batches out of chunks from anywhere: one queue, one thread that fills them, one model."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Protocol

import numpy as np

from rayclip.actors.chunks import BatchSlice, QueuedChunk, in_batches
from rayclip.actors.device_faults import (
    DEATHS_OF_BLAMED_FRAMES,
    BlamedFrames,
    deaths_with,
    empty_cache,
    first_line,
    is_out_of_memory,
    is_poisoned,
)
from rayclip.actors.messages import Chunk, Features, Frame
from rayclip.errors import RunStopped
from rayclip.io.crash_log import Cause, CrashLog
from rayclip.report.run_stats import BatchStats

LINGER_S = 0.5
"""How long a batch that is not full waits for one more chunk: longer than a decoding task needs for
64 frames, so that only the end of a run, where nothing more comes, pays for padding."""
ABORT_S = 10.0  # for which whoever interrupts a run waits for a forward pass


class ImageModel(Protocol):
    """What a batcher drives: a model with forward passes of one fixed shape.

    Attributes:
        batch_size: frames of a pass; set to less where the device has no memory for so many.
    """

    batch_size: int

    @property
    def notes(self) -> Sequence[str]:
        """What the user should know about it, a line each."""
        ...

    @property
    def passes_at_once(self) -> int:
        """How many calls of ``encode_image`` may run side by side."""
        ...

    def encode_image(self, frames: Sequence[Frame]) -> Features: ...
    def close(self) -> None: ...


class Batcher:
    """Encodes chunks of frames in batches that are filled across all chunks at hand.

    The model is loaded on the batching thread, so that callers can go on meanwhile. Batches are
    made of chunks in the order in which they came, and only when a forward pass is free for them.

    A device without memory for a batch gets smaller ones from then on. One that fails for good ends
    the process, and its crash log tells the next one of it; without one every chunk gets
    :class:`RunStopped`.
    """

    def __init__(
        self,
        load: Callable[[], ImageModel],
        linger_s: float = LINGER_S,
        crash_log: CrashLog | None = None,
    ) -> None:
        """Start loading the model.

        Args:
            load: makes the model; what it raises, every ``submit`` gives.
            linger_s: see :data:`LINGER_S`.
            crash_log: for processes to come, if any; they know chunks again by their names.
        """
        self._load = load
        self._linger_s = linger_s
        self._crash_log = crash_log
        self._broken: RunStopped | None = None
        self._queue: queue.SimpleQueue[QueuedChunk | None] = queue.SimpleQueue()
        self._current: QueuedChunk | None = None
        self._stats = BatchStats()
        self._first_pass: float | None = None
        self._results = threading.RLock()  # futures call back while it is held
        self._waiting = 0
        self.ready: Future[ImageModel] = Future()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, frames: list[Frame], chunk_id: str = "") -> Future[Features]:
        """Queue a chunk, uint8 ``[n_px, n_px, 3]`` each, at least one; gives float32 ``[n, D]``
        later.

        The future raises :class:`BlamedFrames` for frames that end processes.
        """
        log = self._crash_log
        deaths = deaths_with(chunk_id, log.deaths) if log else []
        queued = QueuedChunk(Chunk(chunk_id, frames), is_suspect=bool(deaths))
        if len(deaths) >= DEATHS_OF_BLAMED_FRAMES:
            reason = f"its frames ended {len(deaths)} processes of it ({deaths[-1].reason})"
            queued.fail(BlamedFrames(reason))
            return queued.future
        if log and queued.is_suspect:
            queued.future.add_done_callback(lambda _: log.clear(chunk_id))
        self._count(len(frames))
        queued.future.add_done_callback(lambda _: self._count(-len(frames)))
        self._queue.put(queued)
        return queued.future

    def wait(self, futures: Iterable[Future[Features]]) -> Iterable[Future[Features]]:
        """Wait until some of these are done; gives those that are."""
        return wait(futures, return_when=FIRST_COMPLETED).done

    @property
    def waiting(self) -> int:
        """Frames that were given and have no features yet."""
        return self._waiting

    @property
    def stats(self) -> BatchStats:
        return self._stats

    def close(self) -> None:
        """Encode what is queued, then end the threads and let go of the model."""
        self._end_thread()

    def abort(self) -> None:
        """Encode nothing more, and end the threads when what is under way has ended."""
        self._broken = RunStopped("The run was given up.")
        self._end_thread(ABORT_S)

    def _end_thread(self, timeout_s: float | None = None) -> None:
        self._queue.put(None)
        self._thread.join(timeout_s)
        self.ready = Future()

    def _count(self, frames: int) -> None:
        with self._results:
            self._waiting += frames

    def _run(self) -> None:
        ready = self.ready
        try:
            model = self._load()
        except Exception as error:
            ready.set_exception(error)
            while (chunk := self._queue.get()) is not None:
                chunk.fail(error)
            return
        finally:
            del self._load  # it may hold the content of a checkpoint
        self._stats += BatchStats(notes=tuple(model.notes))
        ready.set_result(model)
        try:
            self._encode_all(model)
        finally:
            model.close()

    def _encode_all(self, model: ImageModel) -> None:
        """Batch after batch, until the batcher is closed."""
        free = threading.Semaphore(model.passes_at_once)
        with ThreadPoolExecutor(model.passes_at_once, thread_name_prefix="pass") as passes:
            while True:
                free.acquire()
                slices = self._next_batch(model.batch_size)
                if not slices:
                    return
                if self._broken is not None:
                    self._fail(slices, self._broken)
                    free.release()
                    continue
                taken = 1
                while slices[0].queued.is_suspect and taken < model.passes_at_once:
                    free.acquire()  # until no other pass is under way
                    taken += 1
                forward = passes.submit(self._encode, model, slices)
                forward.add_done_callback(lambda _, taken=taken: free.release(taken))  # type: ignore[misc]

    def _next_batch(self, batch_size: int) -> list[BatchSlice]:
        """Wait for work; returns nothing once the batcher is closed."""
        slices: list[BatchSlice] = []
        room = batch_size
        while room and not (slices and slices[0].queued.is_suspect):
            if self._current is None:
                try:
                    self._current = self._queue.get(timeout=self._linger_s if slices else None)
                except queue.Empty:
                    break
            if self._current is None:
                if slices:
                    self._queue.put(None)
                break
            if slices and self._current.is_suspect:
                break
            slices.append(self._current.take(room))
            room -= len(slices[-1].frames)
            if self._current.taken == len(self._current.chunk.frames):
                self._current = None
        return slices

    def _encode(self, model: ImageModel, slices: Sequence[BatchSlice]) -> None:
        try:
            for batch in in_batches(slices, model.batch_size):
                self._pass(model, batch)
        except Exception as error:  # not the model's, and nobody else would tell who waits
            self._fail(slices, self._broken or error)

    def _pass(self, model: ImageModel, slices: list[BatchSlice]) -> None:
        slices = [part for part in slices if not part.queued.future.done()]
        if not slices:
            return
        frames = [frame for part in slices for frame in part.frames]
        size = model.batch_size
        if len(frames) > size:  # it was halved meanwhile
            self._encode(model, slices)
            return
        started = time.perf_counter()
        self._first_pass = self._first_pass or started
        error: Exception | None = None
        with self._tracking(slices):
            try:
                features = model.encode_image(frames)
                if len(features) != len(frames):
                    raise RuntimeError(f"{len(features)} features came for {len(frames)} frames")
            except Exception as raised:
                error = raised.with_traceback(None)  # its frames keep tensors on the device alive
                if is_poisoned(error):
                    self._end(error)
        ended = time.perf_counter()
        if error is not None:
            self._recover(model, slices, size, error)
            return
        ends = np.cumsum([len(part.frames) for part in slices])[:-1]
        with self._results:
            self._stats += BatchStats(1, len(frames), size, len(slices) > 1, ended - started)
            wall_s = ended - self._first_pass
            room_s = wall_s * model.passes_at_once
            self._stats = replace(self._stats, room_s=room_s, wall_s=wall_s)
            for part, rows in zip(slices, np.split(features, ends), strict=True):
                part.queued.add(part.start, rows)

    def _tracking(self, slices: list[BatchSlice]) -> AbstractContextManager[None]:
        if self._crash_log is None:
            return nullcontext()
        return self._crash_log.tracking(*{part.queued.chunk.id for part in slices})

    def _recover(
        self, model: ImageModel, slices: list[BatchSlice], size: int, error: Exception
    ) -> None:
        """Do what can be done for frames whose pass of ``size`` failed."""
        if is_out_of_memory(error) and size > 1:
            self._halve(model, size)
            self._encode(model, slices)
        elif len(slices) > 1 and self._broken is None:
            for part in slices:  # one chunk may be at fault: the others must not suffer
                self._pass(model, [part])
        else:
            self._fail(slices, self._broken or error)

    def _fail(self, slices: Sequence[BatchSlice], error: Exception) -> None:
        with self._results:
            for part in slices:
                part.queued.fail(error)

    def _halve(self, model: ImageModel, size: int) -> None:
        """Make batches smaller for good, once for all passes of this size that failed."""
        with self._results:
            if model.batch_size >= size:
                model.batch_size = size // 2
                note = (
                    f"An encoder (process {os.getpid()}) has no memory for batches of {size} "
                    f"frames: they have {size // 2} from now on."
                )
                self._stats += BatchStats(notes=(note,))
        empty_cache()

    def _end(self, error: Exception) -> None:
        """End this process; or, where none follows, all that it was asked for."""
        if self._crash_log is not None:
            self._crash_log.end_process(Cause.DEVICE, first_line(error))
        self._broken = RunStopped(
            f"The device failed: {first_line(error)}. With --address none no process outlives "
            "that: run again, or without that option."
        )
