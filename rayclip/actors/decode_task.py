"""A decoding task of Ray: it extracts a few videos and reports on them to the control actor."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import ray

from rayclip.actors.decoder import VideoExtractor
from rayclip.actors.encoder_client import EncoderClient
from rayclip.actors.job import ExtractionJob
from rayclip.actors.messages import FinishedVideo, TaskUpdate, VideoInProgress, WorkerProcess
from rayclip.actors.ray_calls import ask
from rayclip.actors.segment_tasks import Division, RemoteSegments
from rayclip.errors import RunStopped
from rayclip.io.crash_log import CrashLog, Death
from rayclip.media.watchdog import LIBAV
from rayclip.report.results import VideoResult

TELL_S = 0.5  # between two messages: one for each video would cost more than a short video


def results_of(
    videos: Iterable[str],
    job: ExtractionJob,
    control: Any,
    division: Division | None,
    extra_columns: pa.Table | None = None,
) -> list[VideoResult]:
    """One result for each video of a task, in order.

    Args:
        videos: their names.
        job: what to do with each.
        control: the control actor.
        division: how long videos are divided; None never divides them.
        extra_columns: other columns of the videos, saved with them if the format has a place.

    Raises:
        RunStopped: the run cannot go on; the control actor knows why.
    """
    with RemoteAttempts(control) as attempts:
        segments = RemoteSegments(job, control, division) if division else None
        encoders = EncoderClient(control)
        extractor = VideoExtractor(job, encoders, attempts, segments, LIBAV.watching)
        return list(extractor.run(videos, extra_columns))


class RemoteAttempts:
    """Attempts counted by the control actor, which outlives the task. Use it in a ``with`` block
    around the work on a group; Ray gives a task that it runs again the same id.

    What happens to a video is in the crash log at once, from which the control actor learns why
    this process died and what it was busy with. It is told every now and then.
    """

    def __init__(self, control: Any) -> None:
        context = ray.get_runtime_context()
        self._control = control
        self._task_id = context.get_task_id()
        path = f"{context.get_temp_dir()}/rayclip-decoder-{self._task_id}-{os.getpid()}"
        process = WorkerProcess(context.get_node_id(), path)
        deaths = ask(control.begin_task.remote(self._task_id, process))
        self.again: bool = deaths is not None
        self._deaths: dict[int, list[Death]] = deaths or {}
        self._busy: dict[int, tuple[str, float]] = {}
        self._ended: dict[int, FinishedVideo] = {}
        self._told = 0.0
        self._crash_log = CrashLog(path)

    def __enter__(self) -> RemoteAttempts:
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, *__: object
    ) -> None:
        self._crash_log.close()
        if isinstance(error, RunStopped):
            ask(self._control.stop.remote(str(error)))
        self._control.end_task.remote(self._task_id, self._news())

    def begin(self, position: int, video: str) -> list[Death]:
        self._crash_log.begin(position, name=video)
        self._busy[position] = video, time.monotonic()
        self._tell()
        return self._deaths.get(position, [])

    def made(self, position: int) -> None:
        self._crash_log.end(position)
        self._busy.pop(position, None)

    def end(self, position: int, result: VideoResult) -> None:
        self.made(position)
        self._ended[position] = FinishedVideo(result.failure is not None, result.frames)
        self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told >= TELL_S:
            self._told = now
            self._control.note.remote(self._task_id, self._news())

    def _news(self) -> TaskUpdate:
        """What happened since it was last told."""
        now = time.monotonic()
        ended, self._ended = self._ended, {}
        busy = {
            place: VideoInProgress(video, now - begun)
            for place, (video, begun) in self._busy.items()
        }
        return TaskUpdate(ended, busy)
