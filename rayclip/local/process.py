"""The command's end of its worker process: starts it, talks to it and ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Pipe

from rayclip.actors.job import ExtractionJob
from rayclip.errors import RunStopped
from rayclip.interrupts import SIGNALS
from rayclip.io.crash_log import Death, take_death, unrecorded_death
from rayclip.local.messages import EncodeTexts, FromWorker, LoadModel, Task

END_S = 10.0  # longer than the process itself waits for what it is writing

PROGRAM = """
import sys
sys.path[:] = {path!r}
from rayclip.local.worker import main
main({descriptor}, {crash_log!r})
"""


class WorkerProcess:
    """A process that signals do not reach and that needs no module ``__main__``: programs without
    one, such as notebooks, have it as well."""

    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it. It prepares itself while the command plans the run.

        Raises:
            RunStopped: it cannot be started.
        """
        try:
            folder = tempfile.gettempdir()
            self._crash_log = os.path.join(folder, f"rayclip-worker-{uuid.uuid4().hex}")
            self._connection, other_end = Pipe()
            descriptor = other_end.fileno()
            program = PROGRAM.format(
                path=sys.path, descriptor=descriptor, crash_log=self._crash_log
            )
            with other_end, _blocked_signals():
                self._process = subprocess.Popen(
                    [sys.executable, "-c", program],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,  # only the command prints results
                    pass_fds=[descriptor],
                )
        except OSError as error:
            raise RunStopped(f"The worker process cannot be started: {error}.") from error

    def send(self, message: LoadModel | EncodeTexts | ExtractionJob | Task) -> None:
        """Send a message. If the process is dead, ``receive`` tells."""
        with suppress(OSError):
            self._connection.send(message)

    def receive(self) -> FromWorker | None:
        """Wait for the next message; None if the process has died."""
        try:
            message: FromWorker = self._connection.recv()
        except (EOFError, OSError):
            return None
        return message

    def end(self) -> None:
        """End the process; what it is writing gets whole, if that does not take long."""
        self._connection.close()
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)

    def kill(self) -> Death:
        """End the process at once if it has not ended, and return how it died."""
        if self._process is None:
            return unrecorded_death(None)
        self._connection.close()
        self._process.kill()
        self._process.wait()
        return take_death(self._crash_log)


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Block the signals that end a run; processes that are started meanwhile never get them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
