"""Puts a private Ray away when the process that started it is no more, however that ended.

Run as a program of its own, which imports nothing of rayclip, so that it costs next to nothing: it
reads from a pipe whose other end dies with that process.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

ROUNDS = 50  # processes that are ending can still write files
PAUSE_S = 0.2


@contextmanager
def reaped(folder: str) -> Iterator[None]:
    """Make sure that a folder, and processes of Ray that name it, outlive neither the block nor us.

    However the block ends: an agent that Ray leaves behind has nothing to do without its raylet.
    """
    reaper = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # what the terminal sends is not for it
    )
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        reaper.communicate()


def main() -> None:
    sys.stdin.read()
    folder = sys.argv[1]
    for _ in range(ROUNDS):
        left = list(processes_of(folder))
        if not left and not os.path.exists(folder):
            return
        for pid in left:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(PAUSE_S)


def processes_of(folder: str) -> Iterator[int]:
    """Ray's processes with the folder on their command lines, or with files in it; none where there
    is no ``/proc``.

    Agents of a raylet that was killed would go on for a minute, and name nothing.
    """
    with suppress(OSError):
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read()
                rays = words.startswith(b"ray::") or b"/ray/" in words
                if rays and (os.fsencode(folder) in words or _has_files_in(pid, folder)):
                    yield pid


def _has_files_in(pid: int, folder: str) -> bool:
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/{pid}/fd/{descriptor}").startswith(f"{folder}/"):
                return True
    return False


if __name__ == "__main__":
    main()
