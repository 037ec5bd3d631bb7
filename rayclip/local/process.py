"""The command's end of its worker process: starts it, talks to it and ends it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rayclip.actors.job import ExtractionJob
from rayclip.errors import RunStopped
from rayclip.interrupts import SIGNALS
from rayclip.io.child_process import start_child
from rayclip.io.crash_log import Death, take_death, unrecorded_death
from rayclip.local.messages import (
    DescribeModel,
    EncodeTexts,
    Failed,
    FromWorker,
    LoadModel,
    Task,
)
from rayclip.model.models import CustomWeights, ModelSpec

END_S = 10.0  # longer than the process itself waits for what it is writing


class WorkerProcess:
    """A process that signals do not reach."""

    _process: subprocess.Popen[bytes] | None = None

    def __init__(self) -> None:
        self._unread: list[FromWorker] = []

    def start(self) -> None:
        """Start it. It prepares itself while the command plans the run.

        Raises:
            RunStopped: it cannot be started.
        """
        self._unread.clear()
        try:
            with _blocked_signals():
                child = start_child("rayclip.local.worker", "worker")
        except OSError as error:
            raise RunStopped(f"The worker process cannot be started: {error}.") from error
        self._process, self._connection, self._crash_log = child

    def describe(self, model_name: str, custom: CustomWeights, revision: str | None) -> ModelSpec:
        """Look up a model there, so that this process needs no torch.

        Raises:
            UsageError, WeightsUnavailable: as :func:`rayclip.model.models.describe`.
            RunStopped: the process has died.
        """
        self.send(DescribeModel(model_name, custom, revision))
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
