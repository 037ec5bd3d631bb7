"""A Ray task that extracts a few videos and reports on them to the control actor."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from typing import Any

import ray

from rayclip.actors.decoder import VideoExtractor
from rayclip.actors.encoder_client import EncoderClient
from rayclip.actors.job import ExtractionJob, TaskVideo
from rayclip.actors.messages import FinishedVideo, TaskUpdate, VideoInProgress, WorkerProcess
from rayclip.actors.ray_calls import get_reply
from rayclip.actors.segment_tasks import Division, RemoteSegments
from rayclip.actors.tar_task import extract_tar
from rayclip.errors import RunStopped
from rayclip.inputs.video_rows import VideoRows
from rayclip.io.crash_log import CrashLog, Death
from rayclip.media.watchdog import LIBAV
from rayclip.report.results import VideoResult, frames_of

UPDATE_PERIOD_S = 0.5  # one message for each video would cost more than a short video


def extract_videos(
    task: Sequence[str],
    videos: Iterable[TaskVideo],
    job: ExtractionJob,
    control: Any,
    division: Division,
) -> list[VideoResult]:
    """Extract the videos of a task, and return one result for each and each of its models, in
    order.

    Args:
        task: the inputs of the task.
        videos: its videos.
        job: what to do with each.
        control: the control actor.
        division: how long videos are divided.

    Raises:
        RunStopped: the run cannot go on; the control actor knows why.
    """
    with RemoteAttempts(control) as attempts:
        segments = RemoteSegments(job, control, division)
        encoders = EncoderClient(control)
        extractor = VideoExtractor(job, encoders, attempts, segments, LIBAV.watching)
        return list(extractor.run(task, videos))


def extract_tar_file(row: VideoRows, job: ExtractionJob, control: Any) -> list[VideoResult]:
    """Extract the videos of a tar file, and return one result for each and each of the models that
    lack it, in order, then one for the tar file and each model.

    Args:
        row: with the tar file.
        job: what to do with each video.
        control: the control actor.

    Raises:
        RunStopped: the run cannot go on; the control actor knows why.
    """
    (tar,), _, lacking = row
    models = job.numbers if lacking is None else lacking[0]
    with RemoteAttempts(control) as attempts:
        encoders = EncoderClient(control)
        extractor = VideoExtractor(job, encoders, attempts, watching=LIBAV.watching)
        return list(extract_tar(extractor, job, tar, models))


class RemoteAttempts:
    """Attempts counted by the control actor, which outlives the task. Use it in a ``with`` block
    around the task; a Ray retry has the same task id.

    Each event goes to the crash log at once. If this process dies, the control actor learns from
    that log why, and what was in progress. Updates to the control actor are batched.
    """

    def __init__(self, control: Any) -> None:
        context = ray.get_runtime_context()
        self._control = control
        self._task_id = context.get_task_id()
        path = f"{context.get_temp_dir()}/rayclip-decoder-{self._task_id}-{os.getpid()}"
        process = WorkerProcess(context.get_node_id(), path)
        deaths = get_reply(control.begin_task.remote(self._task_id, process))
        self.is_retry: bool = deaths is not None
        self._deaths: dict[int, list[Death]] = deaths or {}
        self._in_progress: dict[int, tuple[str, float]] = {}
        self._finished: dict[int, FinishedVideo] = {}
        self._updated_at_s = 0.0
        self._crash_log = CrashLog(path)

    def __enter__(self) -> RemoteAttempts:
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, *__: object
    ) -> None:
        self._crash_log.close()
        if isinstance(error, RunStopped):
            get_reply(self._control.set_stop_reason.remote(str(error)))
        self._control.end_task.remote(self._task_id, self._update())

    def begin(self, position: int, video: str) -> list[Death]:
        self._crash_log.begin(position, name=video)
        self._in_progress[position] = video, time.monotonic()
        self._send_update()
        return self._deaths.get(position, [])

    def extracted(self, position: int) -> None:
        self._crash_log.end(position)
        self._in_progress.pop(position, None)

    def end(self, position: int, results: Sequence[VideoResult]) -> None:
        self.extracted(position)
        failed = any(result.failure is not None for result in results)
        self._finished[position] = FinishedVideo(failed, frames_of(results))
        self._send_update()

    def _send_update(self) -> None:
        now = time.monotonic()
        if now - self._updated_at_s >= UPDATE_PERIOD_S:
            self._updated_at_s = now
            self._control.update_task.remote(self._task_id, self._update())

    def _update(self) -> TaskUpdate:
        """Return what happened since the last update."""
        now = time.monotonic()
        finished, self._finished = self._finished, {}
        in_progress = {
            position: VideoInProgress(video, now - started)
            for position, (video, started) in self._in_progress.items()
        }
        return TaskUpdate(finished, in_progress)
