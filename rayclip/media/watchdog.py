"""End a process that hangs inside libav, or takes too much memory there: Python can interrupt
nothing."""

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

PERIOD_S = 0.05  # a process that only allocates gets some 100 MB in this time
MIN_LOOKS = 4
STATM = Path("/proc/self/statm")


@dataclass(frozen=True)
class Excess:
    """Why a process is to end.

    Attributes:
        cause: a hang, or too much memory.
        video: that is being decoded.
        reason: what it did, for people.
    """

    cause: Cause
    video: str
    reason: str


def end_process(excess: Excess) -> None:
    """Say why, record it, and end without waiting for anything."""
    sentence = f"rayclip: {excess.video}: the process that decodes it ends: {excess.reason}\n"
    os.write(2, sentence.encode(errors="backslashreplace"))
    crash_log.end_process(excess.cause, excess.reason, os.EX_TEMPFAIL)


@dataclass
class _Watched:
    """A video that is being decoded.

    Attributes:
        name: of the video.
        bytes_before: memory of the process when it was begun.
        is_too_large: whether it has taken too much since.
    """

    name: str
    bytes_before: int
    is_too_large: bool = False


class Watchdog:
    """Looks from a thread of its own whether calls of libav come to an end, and how much memory
    this process has meanwhile: libav allocates what a file claims.

    Wrap each call that may hang::

        with watchdog.watching(video):  # once for a video
            ...
            with watchdog:  # for each packet: 0.2 µs
                packet = next(packets)

    Only the time inside these calls counts. One thread may use it, for one video at a time.

    Nothing reads a clock: a call hangs if many looks in a row find it where it was. A process that
    was stopped and goes on, or a machine that slept, has missed looks and not failed them.

    Memory that is shared with others, such as Ray's object store and mapped files, does not count.
    If the system has no ``/proc``, memory is not limited.
    """

    def __init__(
        self,
        limit_s: float,
        max_growth: int = sys.maxsize,
        max_memory: int = sys.maxsize,
        on_excess: Callable[[Excess], None] = end_process,
    ) -> None:
        """Watch nothing yet.

        Args:
            limit_s: seconds without progress in a call that make a hang; it is seen up to a
                quarter later.
            max_growth: bytes that one video may take; it then fails at its next call.
            max_memory: bytes of the whole process, after which it is to end.
            on_excess: called once, on the watching thread.
        """
        self._limit_s = limit_s
        self._max_growth = max_growth
        self._max_memory = max_memory
        self._on_excess = on_excess
        self._inside = False
        self._steps = 0
        self._video: _Watched | None = None
        self._is_busy = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, video: str) -> Iterator[None]:
        """Name the video that calls in this block are about; the first begins to watch."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        self._video = _Watched(video, private_bytes())
        self._is_busy.set()
        try:
            yield
        finally:
            self._is_busy.clear()
            self._inside = False  # an interrupt may have come between a call and its __exit__
            self._video = None

    def __enter__(self) -> None:
        if self._video is not None and self._video.is_too_large:
            most = self._max_growth // 2**20
            raise BadVideo("decode", Code.TOO_MUCH_MEMORY, f"decoding takes more than {most} MB")
        self._steps += 1
        self._inside = True

    def __exit__(self, *exception: object) -> None:
        self._inside = False

    def moved(self) -> None:
        """Tell, from inside a call, that it gets on: bytes of the video have arrived."""
        self._steps += 1

    def close(self) -> None:
        """Watch no longer."""
        self._closed.set()
        self._is_busy.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        looks = max(MIN_LOOKS, math.ceil(self._limit_s / PERIOD_S))
        seen = alike = 0
        while self._is_busy.wait() and not self._closed.wait(self._limit_s / looks):
            video = self._video
            alike = alike + 1 if self._inside and self._steps == seen else 0
            seen = self._steps
            if video is None:
                continue
            excess = self._excess_of(video, is_hung=alike == looks)
            if excess is not None:
                self._on_excess(excess)
                return

    def _excess_of(self, video: _Watched, is_hung: bool) -> Excess | None:
        """What a video does that its process must end for."""
        if is_hung:
            reason = f"libav has not moved for {self._limit_s:g} s"
            return Excess(Cause.HANG, video.name, reason)
        now = private_bytes()
        video.is_too_large |= now - video.bytes_before > self._max_growth
        if now > self._max_memory:
            return Excess(Cause.MEMORY, video.name, f"it has grown to {now // 2**20} MB of memory")
        return None


def private_bytes() -> int:
    """Memory of this process that is its own; 0 if the system does not tell."""
    try:
        resident, shared = map(int, STATM.read_bytes().split()[1:3])
    except OSError:
        return 0
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


LIBAV_LIMIT_S = 300.0  # longer than storages try again by themselves
VIDEO_MEMORY = 3 * 2**29  # bytes: of 8K, H.264 with all its 16 references takes 1.3 GB
PROCESS_MEMORY = 2**31 - 2**27  # so that it stays below 2 GiB until it is seen
LIBAV = Watchdog(LIBAV_LIMIT_S, VIDEO_MEMORY, PROCESS_MEMORY)
"""Wrapped around the calls of libav in this process; those that own the process let it watch."""
