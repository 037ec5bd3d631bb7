"""How often each video was tried, what ended its attempts, and when it is given up."""

from __future__ import annotations

import collections
import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rayclip.errors import Code, VideoError

CRASHED, HUNG, KILLED = Code.WORKER_CRASHED, Code.WORKER_HUNG, Code.WORKER_KILLED
TOO_LARGE = Code.TOO_MUCH_MEMORY
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

    code: Code
    reason: str
    alone: bool = True

    @classmethod
    def told_by(cls, last_words: str | None) -> Death:
        """What the :mod:`~rayclip.media.last_words` of a process tell of its death."""
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


@dataclass(frozen=True)
class Busy:
    """A video that is at work.

    Attributes:
        video: its name.
        since_s: for how long.
    """

    video: str
    since_s: float


@dataclass(frozen=True)
class Ended:
    """A video that is finished, for better or worse; how many features it has."""

    failed: bool
    frames: int


@dataclass(frozen=True)
class News:
    """What happened in a group since it was last told of, by the places of its videos.

    Attributes:
        ended: those that were finished since.
        busy: those that are at work now.
    """

    ended: Mapping[int, Ended] = field(default_factory=dict)
    busy: Mapping[int, Busy] = field(default_factory=dict)


@dataclass
class _Group:
    """The videos of a task, by their places in it.

    Attributes:
        process: the one that is at work on them.
        news: the last, and when they came.
        deaths: of processes that were at work on them.
        finished: for better or worse.
    """

    process: Process
    news: News = field(default_factory=News)
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

    def begin_group(
        self,
        group: str,
        process: Process,
        death: Death | None = None,
        busy: Collection[int] | None = None,
    ) -> dict[int, list[Death]] | None:
        """Note that a process begins with a group.

        Args:
            group: its task's id.
            process: that begins.
            death: of the one that was at work on it before.
            busy: the videos that were at work then; None where only the last news tell.

        Returns:
            The deaths of processes that were at work on its videos, if it was begun before, so that
            some of them may be done; else None.
        """
        again = group in self._groups or group in self._ended
        work = self._groups.setdefault(group, _Group(process))
        work.process = process
        if death is not None:
            suspects = set(work.news.busy if busy is None else busy) - work.finished
            death = replace(death, alone=len(suspects) == 1)
            for position in suspects:  # who is finished is innocent of what happened to the group
                work.deaths[position].append(death)
        work.news, work.told = News(), time.monotonic()
        return dict(work.deaths) if again else None

    def note(self, group: str, news: News) -> None:
        """Note what happened in a group."""
        work = self._groups.get(group)
        if work is None or group in self._ended:
            return
        work.news, work.told = news, time.monotonic()
        for position, end in news.ended.items():
            if position not in work.finished:
                work.finished.add(position)
                self.failed += end.failed
                self.done += not end.failed
                self.frames += end.frames

    def end_group(self, group: str, news: News) -> None:
        """Note what happened last in a group, which is finished, and forget its videos."""
        self.note(group, news)
        self._groups.pop(group, None)
        self._ended.add(group)

    def longest(self) -> tuple[Process, Busy] | None:
        """The video that is at work the longest, by the last news, and where."""
        now = time.monotonic()
        found = [
            (work.process, replace(busy, since_s=busy.since_s + now - work.told))
            for work in self._groups.values()
            for busy in work.news.busy.values()
        ]
        return max(found, key=lambda one: one[1].since_s, default=None)
