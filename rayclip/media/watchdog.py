"""End a process that hangs inside libav or takes too much memory there.

Python cannot interrupt a call of libav.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rayclip.errors import BadVideo, Code
from rayclip.io import crash_log
from rayclip.io.crash_log import Cause

PERIOD_S = 0.05  # a process that only allocates gets about 100 MB in this time
MIN_CHECKS = 4
STATM = Path("/proc/self/statm")


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


@dataclass
class _Watched:
    """A video that is being decoded.

    Attributes:
        name: of the video.
        bytes_before: memory of the process when decoding started.
        is_too_large: whether its memory has grown too much since.
    """

    name: str
    bytes_before: int
    is_too_large: bool = False


class Watchdog:
    """Monitors calls of libav, and the memory of this process, from a thread of its own.

    libav allocates whatever a file claims to need. Wrap each call that may hang::

        with watchdog.watching(video):  # once for a video
            ...
            with watchdog:  # for each packet: 0.2 µs
                packet = next(packets)

    Only the time inside these calls counts. One thread may use it, for one video at a time.

    No clock is read: a call hangs if many consecutive checks see no progress. If a process was
    suspended, or the machine slept, checks are missed but do not fail.

    Memory shared with other processes, such as Ray's object store and mapped files, does not count.
    If the system has no ``/proc``, memory is not limited.
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
            max_memory: bytes of the whole process; with more, it must end.
            on_violation: called once, on the watching thread.
        """
        self._limit_s = limit_s
        self._max_growth = max_growth
        self._max_memory = max_memory
        self._on_violation = on_violation
        self._inside = False
        self._steps = 0
        self._video: _Watched | None = None
        self._is_busy = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, video: str) -> Iterator[None]:
        """Name the video that calls in this block belong to."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        self._video = _Watched(video, private_bytes())
        self._is_busy.set()
        try:
            yield
        finally:
            self._is_busy.clear()
            self._inside = False  # an interrupt may have skipped __exit__
            self._video = None

    def __enter__(self) -> None:
        if self._video is not None and self._video.is_too_large:
            limit = self._max_growth // 2**20
            raise BadVideo("decode", Code.TOO_MUCH_MEMORY, f"decoding takes more than {limit} MB")
        self._steps += 1
        self._inside = True

    def __exit__(self, *exception: object) -> None:
        self._inside = False

    def report_progress(self) -> None:
        """Report progress from inside a call: bytes of the video have arrived."""
        self._steps += 1

    def close(self) -> None:
        """Stop the thread."""
        self._closed.set()
        self._is_busy.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        checks = max(MIN_CHECKS, math.ceil(self._limit_s / PERIOD_S))
        last_steps = unchanged = 0
        while self._is_busy.wait() and not self._closed.wait(self._limit_s / checks):
            video = self._video
            unchanged = unchanged + 1 if self._inside and self._steps == last_steps else 0
            last_steps = self._steps
            if video is None:
                continue
            violation = self._find_violation(video, is_hung=unchanged == checks)
            if violation is not None:
                self._on_violation(violation)
                return

    def _find_violation(self, video: _Watched, is_hung: bool) -> Violation | None:
        """Why the process must end; None if it need not."""
        if is_hung:
            reason = f"libav has made no progress for {self._limit_s:g} s"
            return Violation(Cause.HANG, video.name, reason)
        now = private_bytes()
        video.is_too_large |= now - video.bytes_before > self._max_growth
        if now > self._max_memory:
            reason = f"it has grown to {now // 2**20} MB of memory"
            return Violation(Cause.MEMORY, video.name, reason)
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
