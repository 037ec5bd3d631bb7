"""Which videos the worker process gets next, and again after it has died."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from rayclip.errors import RunStopped
from rayclip.io.crash_log import LOADING, Death
from rayclip.local.messages import Task

MAX_IDLE_DEATHS = 3  # in a row with no video to blame; then the run stops


class Schedule:
    """Hands out the tasks of a run.

    After a death, each video that was in progress is a suspect: it goes again alone, before
    anything else. So a second death is its own.
    """

    def __init__(self, tasks: Iterator[Task], at_once: int, max_ahead: int | None = None) -> None:
        """Start with all tasks to do.

        Args:
            tasks: in order; read when they are needed.
            at_once: how many are handed out at a time.
            max_ahead: how many videos may come between the first that is unfinished and a new task;
                None for any number.
        """
        self._new = tasks
        self._at_once = at_once
        self._max_ahead = max_ahead
        self._next: Task | None = None
        self._alone: deque[Task] = deque()
        self._again: deque[Task] = deque()
        self._running: dict[int, Task] = {}
        self._idle_deaths = 0

    @property
    def is_done(self) -> bool:
        return not (self._running or self._alone or self._again or self._peek())

    def next_task(self) -> Task | None:
        """Hand out a task; None if there is none at the moment."""
        task = self._take()
        if task is not None:
            self._running[task.start] = task
        return task

    def _take(self) -> Task | None:
        if self._alone:
            return None if self._running else self._alone.popleft()
        runs_alone = any(task.deaths for task in self._running.values())
        if runs_alone or len(self._running) >= self._at_once:
            return None
        for again in self._again:
            if again.start not in self._running:  # another part of the same task
                self._again.remove(again)
                return again
        task = self._peek()
        if task is None or self._is_ahead(task):
            return None
        self._next = None
        return task

    def _peek(self) -> Task | None:
        if self._next is None:
            self._next = next(self._new, None)
        return self._next

    def _is_ahead(self, task: Task) -> bool:
        first = min(self._running, default=task.start)
        return self._max_ahead is not None and task.start - first > self._max_ahead

    def finish(self, position: int) -> bool:
        """Record the result of a video, and return whether it is the first."""
        for start, task in self._running.items():
            if task.lacks(position - start):
                finished = task.finished | {position - start}
                self._running[start] = replace(task, finished=finished)
                self._idle_deaths = 0
                return True
        return False

    def end_task(self, start: int) -> None:
        task = self._running.pop(start, None)
        if task is None or task.only is None or not task.lacks(task.only):
            return
        # its tar file could not be read that far: the part with the others tries again
        self._again = deque(
            rest.with_again(task.only) if (rest.start, rest.only) == (start, None) else rest
            for rest in self._again
        )

    def reschedule(self, death: Death) -> None:
        """Hand out again what the worker process had when it died.

        Raises:
            RunStopped: it keeps dying with no video to blame.
        """
        running, self._running = self._running, {}
        own = {start: _suspects(task, death) for start, task in running.items()}
        suspects = [start + i for start, positions in own.items() for i in positions]
        if not suspects:
            self._count_idle_death(death)
        record = replace(death, busy=tuple(suspects))
        for start, task in running.items():
            self._alone.extend(task.alone(i, record) for i in own[start])
            if (rest := task.without(own[start])) is not None:
                put = self._again.append if task.only is None else self._again.appendleft
                put(rest)  # the part of a tar file that reports on it comes last

    def _count_idle_death(self, death: Death) -> None:
        self._idle_deaths += 1
        if self._idle_deaths < MAX_IDLE_DEATHS:
            return
        if death.busy is None or LOADING in death.busy:
            raise RunStopped(
                "No encoder can start: its processes keep dying while they load the model, "
                "probably because memory is short."
            )
        raise RunStopped(f"The worker process keeps dying: {death.reason}.")


def _suspects(task: Task, death: Death) -> list[int]:
    """Return the positions of a task's videos that may have caused a death, in order. If it is
    unknown what the process was working on, that may be anything, as far as it is known."""
    if death.busy is None:
        listed = () if task.of_tar else range(len(task.videos))
        return [i for i in listed if task.lacks(i)]
    busy = (key - task.start for key in death.busy if isinstance(key, int))
    return sorted(i for i in busy if task.lacks(i))
