"""End a process that hangs inside libav or takes too much memory there.

Python cannot interrupt a call of libav.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rayclip.errors import BadVideo, Code, RunStopped
from rayclip.io import crash_log
from rayclip.io.crash_log import Cause

PERIOD_S = 0.05  # a process that only allocates gets about 100 MB in this time
MIN_CHECKS = 4
STATM = Path("/proc/self/statm")
FURTHER_VIDEO_MEMORY = 2**29
"""Bytes for each further video that a process decodes at the same time. Decoding 4K takes about
200 MB; only one of them may need as much as a process has for a single video."""


@dataclass(frozen=True)
class Violation:
    """Why a process must end.

    Attributes:
        cause: a hang, or too much memory.
        video: the name of the video that is being decoded.
        reason: for the user.
    """

    cause: Cause
    video: str
    reason: str


def end_process(violation: Violation) -> None:
    """Print and record why, and exit without any cleanup."""
    message = f"rayclip: {violation.video}: its decoding process exits: {violation.reason}\n"
    os.write(2, message.encode(errors="backslashreplace"))
    crash_log.end_process(violation.cause, violation.reason, os.EX_TEMPFAIL)


@dataclass(eq=False)
class _Watched:
    """A video that a thread decodes.

    Attributes:
        name: of the video.
        bytes_before: memory of the process when decoding started.
        is_alone: whether no other video was decoded since: only then its memory is known.
        is_too_large: whether its memory has grown too much since.
        is_inside: whether its thread is inside a call.
        steps: how often it has made progress.
        seen_steps: how often at the last check.
        unchanged: consecutive checks without progress.
    """

    name: str
    bytes_before: int
    is_alone: bool
    is_too_large: bool = False
    is_inside: bool = False
    steps: int = 0
    seen_steps: int = 0
    unchanged: int = 0

    def checks_without_progress(self) -> int:
        """Check for progress, and return how many consecutive checks saw none inside a call."""
        stands_still = self.is_inside and self.steps == self.seen_steps
        self.unchanged = self.unchanged + 1 if stands_still else 0
        self.seen_steps = self.steps
        return self.unchanged


class _Current(threading.local):
    """The video of each thread; None between videos."""

    video: _Watched | None = None


class Watchdog:
    """Monitors calls of libav, and the memory of this process, from a thread of its own.

    libav allocates whatever a file claims to need. Wrap each call that may hang::

        with watchdog.watching(video):  # once for a video
            ...
            with watchdog:  # for each packet: 0.3 µs
                packet = next(packets)

    Only the time inside these calls counts. Each thread may watch one video at a time.

    No clock is read: a call hangs if many consecutive checks see no progress. If a process was
    suspended, or the machine slept, checks are missed but do not fail.

    Memory shared with other processes, such as Ray's object store and mapped files, does not count.
    If the system has no ``/proc``, memory is not limited. While several videos are decoded, nobody
    knows which of them takes how much, so only the process has a limit.
    """

    def __init__(
        self,
        limit_s: float,
        max_growth: int = sys.maxsize,
        max_memory: int = sys.maxsize,
        on_violation: Callable[[Violation], None] = end_process,
    ) -> None:
        """Prepare; the first ``watching`` starts the thread.

        Args:
            limit_s: seconds without progress that make a call a hang; detected up to a quarter
                of that later.
            max_growth: bytes that one video may take; with more, its next call fails.
            max_memory: bytes of the whole process; with more, it must end. For each further video
                that was decoded at the same time, it may have :data:`FURTHER_VIDEO_MEMORY` more.
            on_violation: called once, on the watching thread.
        """
        self._limit_s = limit_s
        self._max_growth = max_growth
        self._max_memory = max_memory
        self._on_violation = on_violation
        self._current = _Current()
        self._lock = threading.Lock()
        self._videos: list[_Watched] = []
        self._most_videos = 0
        self._base_bytes = 0
        self._beside_bytes = 0
        self._is_stopped = False
        self._is_busy = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def exempt(self, size: int) -> None:
        """Exempt this many bytes of the process from the limits: those of a model, for example."""
        self._base_bytes = size

    @contextmanager
    def exempting(self, size: int) -> Iterator[None]:
        """Exempt this many further bytes in this block, for work beside decoding that takes them.

        They must be returned to the system before its end.
        """
        with self._lock:
            self._beside_bytes += size
        try:
            yield
        finally:
            with self._lock:
                self._beside_bytes -= size

    def stop(self) -> None:
        """Let every further call fail with :class:`RunStopped`, on all threads."""
        self._is_stopped = True

    @contextmanager
    def watching(self, video: str) -> Iterator[None]:
        """Name the video that calls of this thread in this block belong to."""
        watched = self._begin(video)
        self._current.video = watched
        try:
            yield
        finally:
            self._current.video = None
            self._end(watched)

    def _begin(self, video: str) -> _Watched:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
                self._thread.start()
            for other in self._videos:
                other.is_alone = False
            before = max(private_bytes(), self._base_bytes)
            watched = _Watched(video, before, is_alone=not self._videos)
            self._videos.append(watched)
            self._most_videos = max(self._most_videos, len(self._videos))
            self._is_busy.set()
        return watched

    def _end(self, watched: _Watched) -> None:
        with self._lock:
            self._videos.remove(watched)
            if not self._videos:
                self._is_busy.clear()

    def __enter__(self) -> None:
        video = self._current.video
        if video is None:
            return
        if self._is_stopped:
            raise RunStopped("The run was given up.")
        if video.is_too_large:
            limit = self._max_growth // 2**20
            raise BadVideo("decode", Code.TOO_MUCH_MEMORY, f"decoding takes more than {limit} MB")
        video.steps += 1
        video.is_inside = True

    def __exit__(self, *exception: object) -> None:
        video = self._current.video
        if video is not None:
            video.is_inside = False

    def report_progress(self) -> None:
        """Report progress from inside a call: bytes of the video have arrived."""
        video = self._current.video
        if video is not None:
            video.steps += 1

    def close(self) -> None:
        """Stop the thread."""
        self._closed.set()
        self._is_busy.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        checks = max(MIN_CHECKS, math.ceil(self._limit_s / PERIOD_S))
        while self._is_busy.wait() and not self._closed.wait(self._limit_s / checks):
            with self._lock:
                videos = [*self._videos]
            violation = self._find_hang(videos, checks) or self._find_growth(videos)
            if violation is not None:
                self._on_violation(violation)
                return

    def _find_hang(self, videos: Sequence[_Watched], checks: int) -> Violation | None:
        hung = [video for video in videos if video.checks_without_progress() == checks]
        if not hung:
            return None
        reason = f"libav has made no progress for {self._limit_s:g} s"
        return Violation(Cause.HANG, hung[0].name, reason)

    def _find_growth(self, videos: Sequence[_Watched]) -> Violation | None:
        """Why the process must end for its memory; None if it need not."""
        beside = self._beside_bytes  # first: bytes are returned before they count again
        now = private_bytes() - beside
        for video in videos:
            if video.is_alone:
                video.is_too_large |= now - video.bytes_before > self._max_growth
        further = FURTHER_VIDEO_MEMORY * (self._most_videos - 1)
        if videos and now > self._base_bytes + self._max_memory + further:
            reason = f"it has grown to {now // 2**20} MB of memory"
            names = videos[0].name if len(videos) == 1 else f"one of {len(videos)} videos"
            return Violation(Cause.MEMORY, names, reason)
        return None


def private_bytes() -> int:
    """Bytes of memory that this process does not share; 0 if the system does not report it."""
    try:
        resident, shared = map(int, STATM.read_bytes().split()[1:3])
    except OSError:
        return 0
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


LIBAV_LIMIT_S = 300.0  # longer than storage clients retry by themselves
VIDEO_MEMORY = 3 * 2**29  # bytes: 8K H.264 with all 16 reference frames takes 1.3 GB
PROCESS_MEMORY = 2**31 - 2**27  # detection takes a moment, so this keeps the process below 2 GiB
LIBAV = Watchdog(LIBAV_LIMIT_S, VIDEO_MEMORY, PROCESS_MEMORY)
"""Wraps the calls of libav in this process; whoever owns the process calls ``watching``."""
