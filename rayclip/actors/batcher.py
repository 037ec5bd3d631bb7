"""Fills batches across all queued chunks and encodes them: one queue, one batching thread, one
model."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Protocol

import numpy as np

from rayclip.actors.chunks import Backlog, BatchSlice, QueuedChunk, in_batches
from rayclip.actors.device_faults import (
    DEATHS_OF_BLAMED_FRAMES,
    BlamedFrames,
    deaths_during,
    empty_cache,
    first_line,
    is_out_of_memory,
    is_poisoned,
)
from rayclip.actors.messages import Chunk, Features, Frame
from rayclip.actors.passes import Passes
from rayclip.errors import RunStopped
from rayclip.io.crash_log import Cause, CrashLog, end_process
from rayclip.model.load_stage import current_stage
from rayclip.report.run_stats import BatchStats

LINGER_S = 0.5
"""How long a batch that is not full waits for one more chunk, unless somebody waits for its frames.
A decoding task needs less time for 64 frames, so only the end of a task pays for padding."""


class ImageModel(Protocol):
    """What a batcher drives: a model whose forward passes all have one shape.

    Attributes:
        batch_size: frames per pass; lowered if the device has too little memory.
    """

    batch_size: int

    @property
    def notes(self) -> Sequence[str]:
        """What the user should know about the model, one line each."""
        ...

    @property
    def passes_at_once(self) -> int:
        """How many calls of ``encode_image`` may run concurrently."""
        ...

    def encode_image(self, frames: Sequence[Frame]) -> Features: ...
    def close(self) -> None: ...


class Batcher:
    """Encodes chunks of frames in batches that are filled across all queued chunks.

    The model is loaded on the batching thread, so callers need not wait. Chunks fill batches in the
    order in which they arrive, and a batch is built only when a forward pass is free for it. A
    batcher that waits for frames leaves the passes to other models.

    If a device runs out of memory, batches are smaller from then on. If a device fails permanently,
    the process ends, and its crash log informs the next one.
    """

    def __init__(
        self,
        load: Callable[[], ImageModel],
        linger_s: float = LINGER_S,
        crash_log: CrashLog | None = None,
        passes: Passes | None = None,
    ) -> None:
        """Start loading the model.

        Args:
            load: loads the model; every ``submit`` fails with what it raises.
            linger_s: see :data:`LINGER_S`.
            crash_log: remembers, for later processes, which chunks were being encoded; None without
                later processes.
            passes: shared with the batchers of other models on this device; None without any.
        """
        self._load = load
        self._crash_log = crash_log
        self._passes = passes or Passes()
        self._broken: RunStopped | None = None
        self._backlog = Backlog(linger_s)
        self._stats = BatchStats()
        self._first_pass: float | None = None
        self._results = threading.RLock()  # callbacks of futures run while it is held
        self._waiting = 0
        self.ready: Future[ImageModel] = Future()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, frames: list[Frame], chunk_id: str = "") -> Future[Features]:
        """Queue a chunk, and return the future of its features, float32 ``[n, D]``.

        The future raises :class:`BlamedFrames` for frames that keep ending processes.

        Args:
            frames: at least one, uint8 ``[n_px, n_px, 3]`` each.
            chunk_id: does not change on a retry.
        """
        log = self._crash_log
        deaths = deaths_during(chunk_id, log.deaths) if log else []
        queued = QueuedChunk(Chunk(chunk_id, frames), is_suspect=bool(deaths))
        if len(deaths) >= DEATHS_OF_BLAMED_FRAMES:
            reason = f"these frames ended {len(deaths)} of its processes ({deaths[-1].reason})"
            queued.fail(BlamedFrames(reason))
            return queued.future
        if log and queued.is_suspect:
            queued.future.add_done_callback(lambda _: log.clear(chunk_id))
        self._count(len(frames))
        queued.future.add_done_callback(lambda _: self._count(-len(frames)))
        self._backlog.put(queued)
        return queued.future

    def flush(self) -> None:
        """Encode what is queued as soon as a pass is free: somebody waits for it."""
        self._backlog.flush()

    def wait(self, futures: Iterable[Future[Features]]) -> Iterable[Future[Features]]:
        """Wait until some of these futures are done, and return those."""
        return wait(futures, return_when=FIRST_COMPLETED).done

    @property
    def waiting(self) -> int:
        """Number of frames that were submitted and have no features yet."""
        return self._waiting

    @property
    def stats(self) -> BatchStats:
        return self._stats if self.ready.done() else replace(self._stats, loading=current_stage())

    def close(self) -> None:
        """Encode what is queued, then stop the threads and free the model."""
        self._backlog.close()
        self._thread.join()
        self.ready = Future()

    def abort(self) -> None:
        """Encode nothing more: every chunk fails with :class:`RunStopped`."""
        self._broken = RunStopped("The run was given up.")

    def _count(self, frames: int) -> None:
        with self._results:
            self._waiting += frames

    def _run(self) -> None:
        ready = self.ready
        try:
            model = self._load()
        except Exception as error:
            ready.set_exception(error)
            self._backlog.fail(error)
            return
        finally:
            del self._load  # it may hold a checkpoint
        self._stats += BatchStats(notes=tuple(model.notes))
        ready.set_result(model)
        try:
            self._encode_all(model)
        finally:
            model.close()

    def _encode_all(self, model: ImageModel) -> None:
        """Encode batch after batch until the batcher is closed."""
        self._passes.allow(model.passes_at_once)
        with ThreadPoolExecutor(model.passes_at_once, thread_name_prefix="pass") as threads:
            while self._backlog.wait(model.batch_size):
                alone = self._backlog.begins_with_suspect
                self._passes.begin(alone)
                slices = self._backlog.next_batch(model.batch_size)
                if self._broken is not None:
                    self._fail(slices, self._broken)
                    self._passes.end(alone)
                    continue
                forward = threads.submit(self._encode, model, slices)
                forward.add_done_callback(lambda _, alone=alone: self._passes.end(alone))  # type: ignore[misc]

    def _encode(self, model: ImageModel, slices: Sequence[BatchSlice]) -> None:
        try:
            for batch in in_batches(slices, model.batch_size):
                self._pass(model, batch)
        except Exception as error:  # a bug of ours: nobody else would answer the callers
            self._fail(slices, self._broken or error)

    def _pass(self, model: ImageModel, slices: list[BatchSlice]) -> None:
        slices = [part for part in slices if not part.queued.future.done()]
        if not slices:
            return
        frames = [frame for part in slices for frame in part.frames]
        size = model.batch_size
        if len(frames) > size:  # another pass has halved it
            self._encode(model, slices)
            return
        started = time.perf_counter()
        self._first_pass = self._first_pass or started
        error: Exception | None = None
        with self._tracking(slices):
            try:
                features = model.encode_image(frames)
                if len(features) != len(frames):
                    raise RuntimeError(
                        f"the model returned {len(features)} features for {len(frames)} frames"
                    )
            except Exception as raised:
                error = raised.with_traceback(None)  # stack frames keep tensors on the device alive
                if is_poisoned(error):
                    end_process(Cause.DEVICE, first_line(error), 1)
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
        log, ids = self._crash_log, {part.queued.chunk.id for part in slices}
        return log.tracking(*ids) if log else nullcontext()

    def _recover(
        self, model: ImageModel, slices: list[BatchSlice], size: int, error: Exception
    ) -> None:
        """Retry the frames of a pass of ``size`` that failed, or fail them."""
        if is_out_of_memory(error) and size > 1:
            self._halve(model, size)
            self._encode(model, slices)
        elif len(slices) > 1 and self._broken is None:
            for part in slices:  # retry each alone: only the faulty chunk must fail
                self._pass(model, [part])
        else:
            self._fail(slices, self._broken or error)

    def _fail(self, slices: Sequence[BatchSlice], error: Exception) -> None:
        with self._results:
            for part in slices:
                part.queued.fail(error)

    def _halve(self, model: ImageModel, size: int) -> None:
        """Halve the batch size permanently, once for all concurrent passes of this size that
        failed."""
        with self._results:
            if model.batch_size >= size:
                model.batch_size = size // 2
                note = (
                    f"An encoder (process {os.getpid()}) has no memory for batches of {size} "
                    f"frames: it uses batches of {size // 2} from now on."
                )
                self._stats += BatchStats(notes=(note,))
        empty_cache()
