"""End a process that hangs inside libav, or takes too much memory there: Python can interrupt
nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rayclip.errors import BadVideo, Code
from rayclip.media import last_words
from rayclip.media.memory import MemoryLimit

HUNG_STATUS = 75  # sysexits' EX_TEMPFAIL
LOOKS = 4


def end_process(message: str) -> None:
    """Say why, and end without waiting for anything."""
    last_words.say(message)
    os._exit(HUNG_STATUS)


class Watchdog:
    """Looks from a thread of its own whether calls of libav come to an end.

    Wrap each call that may hang::

        with watchdog.watching(video):  # once for a video
            ...
            with watchdog:  # for each packet: 0.2 µs
                packet = next(packets)

    Only the time inside these calls counts. One thread may use it, for one video at a time.

    Nothing reads a clock: a call hangs when several looks in a row find it where it was. A process
    that was stopped and goes on, or a machine that slept, has missed looks and not failed them.
    """

    def __init__(
        self,
        limit_s: float,
        on_hang: Callable[[str], None] = end_process,
        memory: MemoryLimit | None = None,
    ) -> None:
        """Watch nothing yet.

        Args:
            limit_s: seconds without progress in a call that make a hang; it is seen up to a
                quarter later.
            on_hang: called once, on the watching thread, with a sentence that names the video.
            memory: what a video may take; None sets no limit.
        """
        self._memory = memory
        self._limit_s = limit_s
        self._on_hang = on_hang
        self._inside = False
        self._steps = 0
        self._video: str | None = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, video: str) -> Iterator[None]:
        """Name the video that calls in this block are about; the first begins to watch."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        self._video = video
        try:
            with self._memory.watching(video) if self._memory else nullcontext():
                yield
        finally:
            self._inside = False  # an interrupt may have come between a call and its __exit__
            self._video = None

    def __enter__(self) -> None:
        if self._memory is not None and self._memory.is_exceeded:
            most = self._memory.most_growth // 2**20
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
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        seen = alike = 0
        while not self._closed.wait(self._limit_s / LOOKS):
            alike = alike + 1 if self._inside and self._steps == seen else 0
            seen = self._steps
            if alike == LOOKS:
                self._on_hang(
                    f"rayclip: {self._video}: libav has not moved for {self._limit_s:g} s and "
                    "cannot be interrupted, so this process ends"
                )
                return


LIBAV_LIMIT_S = 300.0  # longer than storages try again by themselves
VIDEO_MEMORY = 3 * 2**29  # bytes: of 8K, H.264 with all its 16 references takes 1.3 GB
PROCESS_MEMORY = 2**31 - 2**27  # so that it stays below 2 GiB until it is seen
LIBAV = Watchdog(LIBAV_LIMIT_S, memory=MemoryLimit(VIDEO_MEMORY, PROCESS_MEMORY, end_process))
"""Wrapped around the calls of libav in this process; those that own the process let it watch."""
