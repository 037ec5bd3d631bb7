"""The worker process of a run without Ray: decodes on several threads and encodes on others.

It ends when the command closes the connection or dies. It never gets the terminal's signals, which
the command handles.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import NoReturn

from rayclip.actors.decoder import WINDOW_BYTES, VideoExtractor
from rayclip.actors.encoder import make_zero_shot
from rayclip.actors.job import Attempts, ExtractionJob, Segments, UncountedAttempts
from rayclip.actors.tar_task import extract_tar
from rayclip.errors import RayclipError, RunStopped
from rayclip.io.crash_log import LOADING, CrashLog, Death
from rayclip.local.devices import LocalEncoders
from rayclip.local.messages import (
    TAR_POSITIONS,
    DescribeModel,
    EncodeTexts,
    Failed,
    Finished,
    FromWorker,
    Loaded,
    LoadModel,
    Report,
    Rows,
    Started,
    Task,
    TaskEnded,
)
from rayclip.local.segments import ThreadSegments
from rayclip.media.watchdog import LIBAV, private_bytes
from rayclip.model.models import describe
from rayclip.output.spool import slices
from rayclip.report.results import VideoResult

REPORT_PERIOD_S = 0.5
END_S = 5.0  # for files that are being written when the run is interrupted

logger = logging.getLogger(__name__)


def main(descriptor: int, crash_log: str) -> NoReturn:
    """Work for the command at the other end of a connection until it closes that or dies.

    Args:
        descriptor: of the connection's socket.
        crash_log: path of the log.
    """
    log = CrashLog(crash_log)
    log.begin(LOADING)
    worker = Worker(Connection(descriptor), log)
    with suppress(EOFError, OSError):
        worker.serve()
    worker.stop()
    log.close()
    os._exit(0)  # without waiting for running passes


class Worker:
    """Serves one command."""

    def __init__(self, connection: Connection, crash_log: CrashLog) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._crash_log = crash_log
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._in_progress: dict[int, tuple[str, float]] = {}
        self._ended = threading.Event()

    def serve(self) -> None:
        """Answer requests.

        Raises:
            EOFError, OSError: the command has closed the connection.
        """
        try:
            import torch
        except Exception as error:
            self.send(Failed(RunStopped(f"torch cannot be imported: {error}")))
        else:
            self.send(Started(torch.cuda.device_count() if torch.cuda.is_available() else 0))
        while True:
            match self._connection.recv():
                case DescribeModel() as request:
                    self._describe(request)
                case LoadModel() as request:
                    self._load(request)
                case EncodeTexts() as request:
                    self._encode_texts(request)
                case ExtractionJob() as job:
                    self._job = job
                case Task() as task:
                    self._tasks.put(task)

    def send(self, message: FromWorker) -> None:
        """Send a message. If the command is gone, ``serve`` tells."""
        with self._sending, suppress(OSError):
            self._connection.send(message)

    def stop(self) -> None:
        """End the tasks in order, as far as that takes no time: files are whole or not there."""
        self._ended.set()
        LIBAV.stop()
        if self._threads:
            self._encoders.abort()
        for _ in self._threads:
            self._tasks.put(None)
        deadline = time.monotonic() + END_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _describe(self, request: DescribeModel) -> None:
        try:
            spec = describe(request.model_name, request.custom, request.revision)
        except Exception as error:
            self.send(Failed(_as_ours(error)))
        else:
            self.send(spec)

    def _load(self, request: LoadModel) -> None:
        self._encoders = LocalEncoders(request.devices, self._crash_log, request.is_restart)
        self._cores = threading.Semaphore(request.cores)
        self._max_segments = request.cores
        self._segments_pool = ThreadPoolExecutor(request.cores, thread_name_prefix="segment")
        self._window_bytes = min(WINDOW_BYTES, self._encoders.window_bytes(request.tasks))
        threading.Thread(target=self._finish_loading, name="loading", daemon=True).start()
        threading.Thread(target=self._report_regularly, name="report", daemon=True).start()
        for _ in range(request.tasks):
            thread = threading.Thread(target=self._run_tasks, name="task", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _finish_loading(self) -> None:
        try:
            self._models = self._encoders.wait_until_loaded()
            passes = sum(model.peak_bytes for model in self._models)
        except Exception as error:
            self.send(Failed(_as_ours(error)))
            return
        LIBAV.exempt(private_bytes() + passes)
        self._crash_log.end(LOADING)
        self.send(Loaded())

    def _encode_texts(self, request: EncodeTexts) -> None:
        try:
            self.send(make_zero_shot(self._models[0], request.texts))
        except RayclipError as error:
            self.send(Failed(error))

    def _run_tasks(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                self._run_task(task)
            except Exception as error:
                self.send(Failed(_as_ours(error)))
            self._report()
            self.send(TaskEnded(task.start))

    def _run_task(self, task: Task) -> None:
        if task.of_tar:
            self._run_tar(task)
            return
        # A retry is alone, and decoding in several threads would blur what it takes.
        segments = None if task.is_retry else self._segments()
        extractor = self._extractor(self._job, TaskAttempts(self, task), segments)
        videos = self._job.videos(task.videos, task.extra_columns, task.lacking)
        unfinished = (video for video in videos if video.position not in task.finished)
        for _ in extractor.run(task.videos, unfinished):
            pass  # it was sent as soon as it was saved

    def _run_tar(self, task: Task) -> None:
        (tar,) = task.videos
        models = self._job.numbers if task.lacking is None else task.lacking[0]
        extractor = self._extractor(self._job, TaskAttempts(self, task))
        results = extract_tar(extractor, self._job, tar, models, task.finished, task.only)
        of_tar = [result for result in results if result.tar is not None]
        if of_tar:
            self.send(Finished(task.start + TAR_POSITIONS - 1, of_tar))

    def _segments(self) -> Segments:
        return ThreadSegments(
            self._job,
            lambda job: self._extractor(job, UncountedAttempts()),
            self._cores,
            self._segments_pool,
            self._max_segments,
        )

    def _extractor(
        self, job: ExtractionJob, attempts: Attempts, segments: Segments | None = None
    ) -> VideoExtractor:
        return VideoExtractor(
            job, self._encoders, attempts, segments, self._decoding, self._window_bytes
        )

    @contextmanager
    def _decoding(self, video: str) -> Iterator[None]:
        with self._cores, LIBAV.watching(video):
            yield

    def begin(self, position: int, video: str) -> None:
        """Record that a video of the run begins."""
        self._crash_log.begin(position, name=video)
        self._in_progress[position] = video, time.monotonic()

    def extracted(self, position: int) -> None:
        """Record that a video of the run is no longer in progress."""
        self._crash_log.end(position)
        self._in_progress.pop(position, None)

    def _report_regularly(self) -> None:
        while not self._ended.wait(REPORT_PERIOD_S):
            self._report()

    def _report(self) -> None:
        started = [*self._in_progress.values()]
        oldest = None
        if started:
            video, since = min(started, key=lambda pair: pair[1])
            oldest = video, time.monotonic() - since
        self.send(Report(self._encoders.work, self._encoders.waiting, oldest))


def _as_ours(error: Exception) -> RayclipError:
    """The error for the user; a bug of ours is logged as well."""
    if isinstance(error, RayclipError):
        return error
    logger.exception("in the worker process")
    return RunStopped(f"The run stopped: {error!r}.")


class TaskAttempts:
    """The attempts at the videos of a task; sends the results."""

    def __init__(self, worker: Worker, task: Task) -> None:
        self.is_retry = task.is_retry
        self._worker = worker
        self._task = task

    def begin(self, position: int, video: str) -> Sequence[Death]:
        self._worker.begin(self._task.start + position, video)
        return self._task.deaths.get(position, ())

    def extracted(self, position: int) -> None:
        self._worker.extracted(self._task.start + position)

    def end(self, position: int, results: Sequence[VideoResult]) -> None:
        position += self._task.start
        self._worker.extracted(position)
        rest = []
        for model, result in enumerate(results):
            if result.extraction is not None:
                for rows in slices(result.extraction.clip):
                    self._worker.send(Rows(position, model, rows))
                extraction = result.extraction._replace(clip=result.extraction.clip[:0])
                result = replace(result, extraction=extraction)
            rest.append(result)
        self._worker.send(Finished(position, rest))
