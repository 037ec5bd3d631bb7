"""Hold a process to a limit of memory while it decodes: libav allocates what a file claims."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PERIOD_S = 0.05  # a process that only allocates gets some 100 MB in this time
STATM = Path("/proc/self/statm")


class MemoryLimit:
    """Looks from a thread of its own how much memory this process has.

    Memory that is shared with others, such as Ray's object store and mapped files, does not count.
    Where the system has no ``/proc``, nothing is limited.

    Attributes:
        is_exceeded: the video of now takes more than one may. Whoever decodes it is to give it up.
    """

    def __init__(self, most_growth: int, most: int, on_excess: Callable[[str], None]) -> None:
        """Look at nothing yet.

        Args:
            most_growth: bytes that one video may take.
            most: bytes of the whole process beyond which ``on_excess`` is called.
            on_excess: called on the watching thread, with a sentence that names the video.
        """
        self.is_exceeded = False
        self.most_growth = most_growth
        self._most = most
        self._on_excess = on_excess
        self._before = 0
        self._video: str | None = None
        self._is_busy = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, video: str) -> Iterator[None]:
        """Look at what this block takes; the first begins to look."""
        if self._thread is None and STATM.exists():
            self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
            self._thread.start()
        self._before = private_bytes()
        self.is_exceeded = False
        self._video = video
        self._is_busy.set()
        try:
            yield
        finally:
            self._is_busy.clear()
            self._video = None

    def close(self) -> None:
        """Look no longer."""
        self._closed.set()
        self._is_busy.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while self._is_busy.wait() and not self._closed.wait(PERIOD_S):
            video, now = self._video, private_bytes()
            if video is None:
                continue
            self.is_exceeded |= now - self._before > self.most_growth
            if now > self._most:
                self._on_excess(
                    f"rayclip: {video}: decoding it has brought this process to "
                    f"{now // 2**20} MB of memory, so it ends"
                )
                return


def private_bytes() -> int:
    """Memory of this process that is its own; 0 where the system does not tell."""
    try:
        resident, shared = map(int, STATM.read_bytes().split()[1:3])
    except OSError:
        return 0
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
