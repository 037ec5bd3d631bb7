"""Notices when a private Ray loses a process without which it cannot go on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rayclip.report.interrupts import stop_program
from rayclip.session.reaper import processes_of

NEEDED = {b"raylet": "raylet", b"gcs_server": "control store (gcs_server)"}
PERIOD_S = 0.5


@contextmanager
def watched(folder: str) -> Iterator[Callable[[], bool]]:
    """Stop the program if Ray's own processes die, as they do where memory is short.

    Ray would end it, some seconds or a minute later: with status 1, which means something else.

    Args:
        folder: the temporary folder of a Ray that this process started.

    Yields:
        Says whether they are alive; they cannot be asked for anything else.
    """
    needed = dict(_needed_of(folder))
    gone: list[str] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(PERIOD_S):
            gone.extend(name for pid, name in needed.items() if _has_ended(pid))
            if gone:
                stop_program(
                    f"Ray's {gone[0]} died, as it does where memory is short: what was finished is "
                    "kept. Run the same command again, with --address none if it dies again."
                )
                return

    thread = threading.Thread(target=watch, name="ray-watch", daemon=True)
    thread.start()
    try:
        yield lambda: not gone
    finally:
        ended.set()
        thread.join()


def _needed_of(folder: str) -> Iterator[tuple[int, str]]:
    for pid in processes_of(folder):
        with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            program = os.path.basename(file.read().partition(b"\0")[0])
            if program in NEEDED:
                yield pid, NEEDED[program]


def _has_ended(pid: int) -> bool:
    """Whether a child has ended; whoever started it still gets its status."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # somebody was told already
        return True
