"""How often each video was tried, what ended its attempts, and when it is given up."""

from __future__ import annotations

import collections
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rayclip.actors.messages import TaskUpdate, VideoInProgress, WorkerProcess
from rayclip.errors import Code, VideoError
from rayclip.io.crash_log import Cause, Death

CODES = {
    Cause.CRASH: Code.WORKER_CRASHED,
    Cause.HANG: Code.WORKER_HUNG,
    Cause.MEMORY: Code.TOO_MUCH_MEMORY,
    Cause.KILL: Code.WORKER_KILLED,
}
HOW = {
    Cause.CRASH: "crashed",
    Cause.HANG: "hung",
    Cause.MEMORY: "took too much memory",
    Cause.KILL: "was killed",
}
MAX_KILLS = 10


def why_to_give_up(deaths: Sequence[Death], max_attempts: int) -> VideoError | None:
    """What is wrong with a video that ended these processes; None if it is to be tried again.

    Crashes, hangs and memory are its own doing, but the last of them must have come while no other
    video was at work. Kills are not; but what is killed :data:`MAX_KILLS` times, while Ray waits
    longer from one to the next, may well be what fills the memory.

    Args:
        deaths: in order, each with the videos that may be the reason.
        max_attempts: deaths of its own doing that a video may have.
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
    message = f"its worker process {HOW[last.cause]} {times} ({last.reason})"
    return VideoError("decode", CODES[last.cause], message)


@dataclass
class _Task:
    """The videos of a task, by their places in it.

    Attributes:
        process: the one that is at work on them.
        news: the last, and when they came.
        deaths: of processes that were at work on them.
        finished: for better or worse.
    """

    process: WorkerProcess
    update: TaskUpdate = field(default_factory=TaskUpdate)
    told: float = field(default_factory=time.monotonic)
    deaths: collections.defaultdict[int, list[Death]] = field(
        default_factory=lambda: collections.defaultdict(list)
    )
    finished: set[int] = field(default_factory=set)


class AttemptLog:
    """Remembers the videos of groups that are at work; a group is what one task decodes.

    Attributes:
        done: videos finished.
        failed: videos given up.
        frames: features of the finished ones.
    """

    def __init__(self) -> None:
        self.done = self.failed = self.frames = 0
        self._tasks: dict[str, _Task] = {}
        self._ended: set[str] = set()

    @property
    def tasks(self) -> int:
        """How many groups were begun and are not ended."""
        return len(self._tasks)

    def process_of(self, task: str) -> WorkerProcess | None:
        """The process that was last at work on a group that is not ended."""
        work = self._tasks.get(task)
        return work.process if work else None

    def begin_task(
        self,
        task: str,
        process: WorkerProcess,
        death: Death | None = None,
    ) -> dict[int, list[Death]] | None:
        """Note that a process begins with a group.

        Args:
            group: its task's id.
            process: that begins.
            death: of the one that was at work on it before. If nobody knows what that was busy
                with, its last news tell.

        Returns:
            The deaths of processes that were at work on its videos, if it was begun before, so that
            some of them may be done; else None.
        """
        again = task in self._tasks or task in self._ended
        work = self._tasks.setdefault(task, _Task(process))
        work.process = process
        if death is not None:
            busy = work.update.in_progress if death.busy is None else death.busy
            suspects = {key for key in busy if isinstance(key, int)} - work.finished
            for position in suspects:
                work.deaths[position].append(replace(death, busy=tuple(suspects)))
        work.update, work.told = TaskUpdate(), time.monotonic()
        return dict(work.deaths) if again else None

    def note(self, task: str, update: TaskUpdate) -> None:
        """Note what happened in a group."""
        work = self._tasks.get(task)
        if work is None or task in self._ended:
            return
        work.update, work.told = update, time.monotonic()
        for position, end in update.finished.items():
            if position not in work.finished:
                work.finished.add(position)
                self.failed += end.failed
                self.done += not end.failed
                self.frames += end.frames

    def end_task(self, task: str, update: TaskUpdate) -> None:
        """Note what happened last in a group, which is finished, and forget its videos."""
        self.note(task, update)
        self._tasks.pop(task, None)
        self._ended.add(task)

    def longest(self) -> tuple[WorkerProcess, VideoInProgress] | None:
        """The video that is at work the longest, by the last news, and where."""
        now = time.monotonic()
        found = [
            (work.process, replace(busy, since_s=busy.since_s + now - work.told))
            for work in self._tasks.values()
            for busy in work.update.in_progress.values()
        ]
        return max(found, key=lambda one: one[1].since_s, default=None)
