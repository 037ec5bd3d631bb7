"""How often each video was tried, how its attempts ended, and when to give it up."""

from __future__ import annotations

import collections
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rayclip.actors.messages import TaskUpdate, VideoInProgress, WorkerProcess
from rayclip.errors import Code, Stage, VideoError
from rayclip.io.crash_log import Cause, Death

CODES = {
    Cause.CRASH: Code.WORKER_CRASHED,
    Cause.HANG: Code.WORKER_HUNG,
    Cause.MEMORY: Code.TOO_MUCH_MEMORY,
    Cause.DEVICE: Code.ENCODER_FAILED,
    Cause.KILL: Code.WORKER_KILLED,
}
VERBS = {
    Cause.CRASH: "crashed",
    Cause.HANG: "hung",
    Cause.MEMORY: "took too much memory",
    Cause.DEVICE: "lost its device",
    Cause.KILL: "was killed",
}
MAX_KILLS = 10


def give_up_error(deaths: Sequence[Death], max_attempts: int) -> VideoError | None:
    """Return why a video is given up, or None to retry it.

    Crashes, hangs, memory and lost devices count against the video, but only if it was the only one
    in progress at the last of them. Kills do not count, except that a video with :data:`MAX_KILLS`
    kills is given up: it was alone each time, so it probably fills the memory itself.

    Args:
        deaths: of processes, in order, each with the videos that may have caused it.
        max_attempts: how many deaths a video may cause.
    """
    own = [death for death in deaths if death.cause is not Cause.KILL]
    kills = [death for death in deaths if death.cause is Cause.KILL]
    if len(own) >= max_attempts and len(own[-1].busy or ()) == 1:
        blamed = own
    elif len(kills) >= MAX_KILLS:
        blamed = kills
    else:
        return None
    last, times = blamed[-1], f"{len(blamed)} times" if len(blamed) > 1 else "once"
    message = f"its worker process {VERBS[last.cause]} {times} ({last.reason})"
    stage: Stage = "encode" if last.cause is Cause.DEVICE else "decode"
    return VideoError(stage, CODES[last.cause], message)


@dataclass
class _Task:
    """The videos of a task. Keys are their positions in it.

    Attributes:
        process: the process that runs the task.
        update: the last one that it sent.
        updated_at_s: when that arrived.
        deaths: of earlier processes, for each video that was in progress then.
        finished: videos that are done or failed.
    """

    process: WorkerProcess
    update: TaskUpdate = field(default_factory=TaskUpdate)
    updated_at_s: float = field(default_factory=time.monotonic)
    deaths: collections.defaultdict[int, list[Death]] = field(
        default_factory=lambda: collections.defaultdict(list)
    )
    finished: set[int] = field(default_factory=set)


class AttemptLog:
    """Remembers the tasks of a run, and the videos of those that are running.

    Attributes:
        done: number of videos done.
        failed: number of videos that failed.
        frames: features of the videos that are done.
    """

    def __init__(self) -> None:
        self.done = self.failed = self.frames = 0
        self._tasks: dict[str, _Task] = {}
        self._ended: set[str] = set()

    @property
    def running_tasks(self) -> int:
        """Number of tasks that have begun and not ended."""
        return len(self._tasks)

    @property
    def ended_tasks(self) -> int:
        """Number of tasks that have ended."""
        return len(self._ended)

    def last_process(self, task: str) -> WorkerProcess | None:
        """Return the last process that ran a task; None if the task is not running."""
        found = self._tasks.get(task)
        return found.process if found else None

    def begin_task(
        self, task: str, process: WorkerProcess, death: Death | None = None
    ) -> dict[int, list[Death]] | None:
        """Record that a process begins a task.

        Args:
            task: its id, which a retry keeps.
            process: the process that begins.
            death: how the last process of this task died. If it is not known what that one was
                working on, its last update decides.

        Returns:
            None on the first attempt at the task. On a retry, the deaths for each video that was
            in progress; some videos may be done already.
        """
        is_retry = task in self._tasks or task in self._ended
        found = self._tasks.setdefault(task, _Task(process))
        found.process = process
        if death is not None:
            busy = found.update.in_progress if death.busy is None else death.busy
            suspects = {key for key in busy if isinstance(key, int)} - found.finished
            for position in suspects:
                found.deaths[position].append(replace(death, busy=tuple(suspects)))
        found.update, found.updated_at_s = TaskUpdate(), time.monotonic()
        return dict(found.deaths) if is_retry else None

    def update_task(self, task: str, update: TaskUpdate) -> None:
        """Record what happened in a task."""
        found = self._tasks.get(task)
        if found is None or task in self._ended:
            return
        found.update, found.updated_at_s = update, time.monotonic()
        for position, video in update.finished.items():
            if position not in found.finished:
                found.finished.add(position)
                self.failed += video.failed
                self.done += not video.failed
                self.frames += video.frames

    def end_task(self, task: str, update: TaskUpdate) -> None:
        """Record the last update of a task that has ended, and forget its videos."""
        self.update_task(task, update)
        self._tasks.pop(task, None)
        self._ended.add(task)

    def longest_running(self) -> tuple[WorkerProcess, VideoInProgress] | None:
        """Return the video that has been in progress longest, by the last updates, and its process;
        None if there is none."""
        now = time.monotonic()
        found = [
            (task.process, replace(video, since_s=video.since_s + now - task.updated_at_s))
            for task in self._tasks.values()
            for video in task.update.in_progress.values()
        ]
        return max(found, key=lambda pair: pair[1].since_s, default=None)
