"""Notices when a private Ray loses a process that it cannot do without."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress

from rayclip.interrupts import stop_program
from rayclip.session.reaper import processes_of

NEEDED = {b"raylet": "raylet", b"gcs_server": "control store (gcs_server)"}
PERIOD_S = 0.5


class Watch:
    """Stops the program if one of Ray's own processes dies, which happens if memory is short.

    Ray itself would end the program seconds or a minute later, with status 1, which means something
    else here.

    Attributes:
        lost: the process that died during the ``with`` block; None if none did.
    """

    def __init__(self, folder: str) -> None:
        """Find the processes to watch.

        Args:
            folder: temporary folder of a Ray that this process started.
        """
        self.lost: str | None = None
        self._needed = dict(_find_needed(folder))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ray-watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        """Stop watching: from now on the processes may end."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while self.lost is None and not self._ended.wait(PERIOD_S):
            self.lost = next((name for pid, name in self._needed.items() if _has_ended(pid)), None)
        if self.lost is not None:
            stop_program(
                f"Ray's {self.lost} died, probably because memory is short. Finished videos are "
                "kept: rerun the same command, with --address none if it dies again."
            )


def _find_needed(folder: str) -> Iterator[tuple[int, str]]:
    for pid in processes_of(folder):
        with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            program = os.path.basename(file.read().partition(b"\0")[0])
            if program in NEEDED:
                yield pid, NEEDED[program]


def _has_ended(pid: int) -> bool:
    """Whether a child has ended; its parent code can still collect its status."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # its status was collected already
        return True
