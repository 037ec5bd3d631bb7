"""How often each video was tried, what ended its attempts, and when it is given up."""

from __future__ import annotations

import collections
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rayclip.errors import VideoError

CRASHED, HUNG, KILLED = "worker_crashed", "worker_hung", "worker_killed"
TOO_LARGE = "too_much_memory"
HOW = {
    CRASHED: "crashed",
    HUNG: "hung",
    KILLED: "was killed",
    TOO_LARGE: "took too much memory",
}
MOST_KILLS = 10

_CRASH = re.compile("^Fatal Python error: (.*)$", re.MULTILINE)
_LARGE = re.compile(r"has brought this process to \d+ MB of memory")
_HANG = re.compile(r"libav has not moved for \S+ s")


@dataclass(frozen=True)
class Death:
    """The end of a process that was at work on a video.

    Attributes:
        code: ``worker_crashed``, ``worker_hung``, ``too_much_memory``; or ``worker_killed``, from
            outside or with all of its node, which says nothing about the video.
        reason: a few words.
        alone: whether it was at work on no other video.
    """

    code: str
    reason: str
    alone: bool = True

    @classmethod
    def told_by(cls, last_words: str | None) -> Death:
        """What the :mod:`~rayclip.last_words` of a process tell of its death."""
        if crash := _CRASH.search(last_words or ""):
            return cls(CRASHED, crash[1])
        if hang := _HANG.search(last_words or ""):
            return cls(HUNG, hang[0])
        if large := _LARGE.search(last_words or ""):
            return cls(TOO_LARGE, large[0])
        return cls(KILLED, "it may need more memory than there is")


def why_to_give_up(deaths: Sequence[Death], max_attempts: int) -> VideoError | None:
    """What is wrong with a video that ended these processes; None where it is to be tried again.

    Crashes, hangs and memory are its own doing, but the last of them must have come while no other
    video was at work. Kills are not; but what is killed :data:`MOST_KILLS` times, while Ray waits
    longer from one to the next, may well be what fills the memory.
    """
    own = [death for death in deaths if death.code != KILLED]
    if len(own) >= max_attempts and own[-1].alone:
        blamed = own
    elif len(deaths) - len(own) >= MOST_KILLS:
        blamed = [death for death in deaths if death.code == KILLED]
    else:
        return None
    code, times = blamed[-1].code, f"{len(blamed)} times" if len(blamed) > 1 else "once"
    message = f"its worker process {HOW[code]} {times} ({blamed[-1].reason})"
    return VideoError("decode", code, message)


@dataclass(frozen=True)
class Process:
    """Where a decoding process works, and where its last words would be."""

    node_id: str
    last_words: str


@dataclass
class _Group:
    """The videos of a task, by their places in it.

    Attributes:
        process: the one that is at work on them.
        busy: those that are at work, and when they were begun.
        deaths: of processes that were at work on them.
        finished: for better or worse.
    """

    process: Process
    busy: dict[int, tuple[str, float]] = field(default_factory=dict)
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
        self._groups: dict[str, _Group] = {}
        self._ended: set[str] = set()

    @property
    def groups(self) -> int:
        """How many groups were begun and are not ended."""
        return len(self._groups)

    def process_of(self, group: str) -> Process | None:
        """The process that was last at work on a group that is not ended."""
        work = self._groups.get(group)
        return work.process if work else None

    def begin_group(self, group: str, process: Process, death: Death | None) -> bool:
        """Note that a process begins with a group.

        Args:
            group: its task's id.
            process: that begins.
            death: of the one that was at work on it before.

        Returns:
            Whether it was begun before, so that some of its videos may be done.
        """
        again = group in self._groups or group in self._ended
        work = self._groups.setdefault(group, _Group(process))
        work.process = process
        if death is not None:
            death = replace(death, alone=len(work.busy) == 1)
            for position in work.busy:
                work.deaths[position].append(death)
            work.busy.clear()
        return again

    def begin(self, group: str, position: int, video: str) -> list[Death]:
        """Note that a video is begun; the deaths of processes that were at work on it before."""
        work = self._groups[group]
        if position not in work.finished:  # else it is innocent of what happened to its group
            work.busy[position] = video, time.monotonic()
        return work.deaths[position]

    def made(self, group: str, position: int) -> None:
        """Note that a video is no more at work, and innocent of what ends its process now."""
        work = self._groups.get(group)
        if work is not None:
            work.busy.pop(position, None)

    def end(self, group: str, position: int, failed: bool, frames: int) -> None:
        """Note that a video is finished, for better or worse."""
        work = self._groups.get(group)
        if work is None or position in work.finished or group in self._ended:
            return
        work.finished.add(position)
        work.busy.pop(position, None)
        self.failed += failed
        self.done += not failed
        self.frames += frames

    def end_group(self, group: str) -> None:
        """Forget the videos of a group, which is finished."""
        self._groups.pop(group, None)
        self._ended.add(group)

    def longest(self) -> tuple[str, float] | None:
        """The video that is at work the longest, and for how many seconds."""
        busy = [begun for group in self._groups.values() for begun in group.busy.values()]
        if not busy:
            return None
        video, since = min(busy, key=lambda begun: begun[1])
        return video, time.monotonic() - since
