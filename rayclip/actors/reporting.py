"""A task's account of its videos, for the control actor."""

from __future__ import annotations

import os
import time
from typing import Any

import ray

from rayclip.actors.attempts import Busy, Ended, News, Process
from rayclip.actors.ray_calls import ask
from rayclip.errors import RunStopped
from rayclip.io.crash_log import CrashLog, Death
from rayclip.report.results import VideoResult

TELL_S = 0.5  # between two messages: one for each video would cost more than a short video


class RemoteAttempts:
    """Attempts counted by the control actor, which outlives the task. Use it in a ``with`` block
    around the work on a group; Ray gives a task that it runs again the same id.

    What happens to a video is in the crash log at once, from which the control actor learns why
    this process died and what it was busy with. It is told every now and then.
    """

    def __init__(self, pool: Any) -> None:
        context = ray.get_runtime_context()
        self._pool = pool
        self._group = context.get_task_id()
        path = f"{context.get_temp_dir()}/rayclip-decoder-{self._group}-{os.getpid()}"
        process = Process(context.get_node_id(), path)
        deaths = ask(pool.begin_group.remote(self._group, process))
        self.again: bool = deaths is not None
        self._deaths: dict[int, list[Death]] = deaths or {}
        self._busy: dict[int, tuple[str, float]] = {}
        self._ended: dict[int, Ended] = {}
        self._told = 0.0
        self._crash_log = CrashLog(path)

    def __enter__(self) -> RemoteAttempts:
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, *__: object
    ) -> None:
        self._crash_log.close()
        if isinstance(error, RunStopped):
            ask(self._pool.stop.remote(str(error)))
        self._pool.end_group.remote(self._group, self._news())

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
        self._ended[position] = Ended(result.failure is not None, result.frames)
        self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told >= TELL_S:
            self._told = now
            self._pool.note.remote(self._group, self._news())

    def _news(self) -> News:
        """What happened since it was last told."""
        now = time.monotonic()
        ended, self._ended = self._ended, {}
        busy = {place: Busy(video, now - begun) for place, (video, begun) in self._busy.items()}
        return News(ended, busy)
