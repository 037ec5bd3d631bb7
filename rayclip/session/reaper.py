"""Removes a private Ray when the process that started it is gone, however that ended.

Runs as a program of its own and imports nothing of rayclip, so it costs almost nothing. It reads
from a pipe whose other end closes with that process.
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

ROUNDS = 50  # ending processes can still write files
PAUSE_S = 0.2


@contextmanager
def reaped(folder: str) -> Iterator[None]:
    """Ensure that a folder, and Ray's processes that name it, outlive neither the block nor this
    process.

    This holds however the block ends: agents that Ray leaves behind are useless without their
    raylet.
    """
    reaper = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # signals of the terminal must not reach it
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
        remaining = list(processes_of(folder))
        if not remaining and not os.path.exists(folder):
            return
        for pid in remaining:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(PAUSE_S)


def processes_of(folder: str) -> Iterator[int]:
    """Yield Ray's processes with the folder on their command lines, or with open files in it; none
    if there is no ``/proc``.

    Agents of a killed raylet would run for another minute, and do not name the folder.
    """
    with suppress(OSError):
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
                command = file.read()
                is_ray = command.startswith(b"ray::") or b"/ray/" in command
                if is_ray and (os.fsencode(folder) in command or _has_files_in(pid, folder)):
                    yield pid


def _has_files_in(pid: int, folder: str) -> bool:
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/{pid}/fd/{descriptor}").startswith(f"{folder}/"):
                return True
    return False


if __name__ == "__main__":
    main()
