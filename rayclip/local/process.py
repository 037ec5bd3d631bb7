"""The command's end of its worker process: starts it, talks to it and ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from typing import Any

from rayclip.actors.job import ExtractionJob
from rayclip.errors import RunStopped
from rayclip.interrupts import SIGNALS
from rayclip.io.crash_log import Death, take_death, unrecorded_death
from rayclip.local.messages import (
    DescribeModel,
    EncodeTexts,
    Failed,
    FromWorker,
    LoadModel,
    Task,
)
from rayclip.model.models import ModelSpec
from rayclip.settings import Activation

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

    def __init__(self) -> None:
        self._unread: list[FromWorker] = []

    def start(self) -> None:
        """Start it. It prepares itself while the command plans the run.

        Raises:
            RunStopped: it cannot be started.
        """
        try:
            folder = tempfile.gettempdir()
            self._crash_log = os.path.join(folder, f"rayclip-worker-{uuid.uuid4().hex}")
            self._unread.clear()
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

    def describe(
        self,
        model_name: str,
        weights: str | None,
        storage_options: Mapping[str, Any],
        activation: Activation | None,
    ) -> ModelSpec:
        """Look up a model there, so that this process needs no torch.

        Raises:
            UsageError, WeightsUnavailable: as :func:`rayclip.model.models.describe`.
            RunStopped: the process has died.
        """
        self.send(DescribeModel(model_name, weights, storage_options, activation))
        while True:
            message = self._receive()
            if isinstance(message, ModelSpec):
                return message
            if isinstance(message, Failed):
                raise message.error
            if message is None:
                reason = self.kill().reason
                raise RunStopped(
                    f"The worker process died while it looked up {model_name} ({reason})."
                )
            self._unread.append(message)

    def send(self, message: DescribeModel | LoadModel | EncodeTexts | ExtractionJob | Task) -> None:
        """Send a message. If the process is dead, ``receive`` tells."""
        with suppress(OSError):
            self._connection.send(message)

    def receive(self) -> FromWorker | None:
        """Wait for the next message; None if the process has died."""
        return self._unread.pop(0) if self._unread else self._receive()

    def _receive(self) -> FromWorker | None:
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
