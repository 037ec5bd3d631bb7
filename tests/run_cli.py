"""Run the command line, in this process or its own, and find the processes that it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from unittest.mock import MagicMock, patch

import psutil
from typer.testing import CliRunner

from rayclip.actors.batcher import Batcher
from rayclip.cli import app
from rayclip.inputs import lists
from rayclip.io.crash_log import Death, unrecorded_death
from rayclip.local.process import WorkerProcess
from rayclip.local.worker import Worker
from rayclip.media.watchdog import LIBAV

DEADLINE_S = 120.0
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
"""For Ray clusters of tests and their clients. Otherwise Ray replaces 127.0.0.1 by the address of
the network, and starts a process for usage statistics."""


@dataclass(frozen=True)
class Finished:
    status: int
    stdout: str
    stderr: str


def call(
    *words: str | Path, env: Mapping[str, str] | None = None, stdin: str | None = None
) -> Finished:
    """Run the command in this process: heavy modules are imported only once, and patches hold.

    Batches do not wait until they are full: these runs are so short that they would mostly wait.
    """
    lists._standard_input.cache_clear()  # as in a process of its own
    with in_this_process():
        result = CliRunner().invoke(app, [*map(str, words)], env=env, input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Finished(result.exit_code, result.stdout, result.stderr)


@contextmanager
def in_this_process() -> Iterator[None]:
    """Let runs without Ray start no process, and their batches not wait until they are full."""
    with (
        patch("rayclip.local.machine.WorkerProcess", WorkerThread),
        patch("rayclip.actors.device_batchers.Batcher", partial(Batcher, linger_s=0)),
    ):
        yield


class WorkerThread(WorkerProcess):
    """The worker of a run without Ray, on threads of this process; it must not die."""

    def start(self) -> None:
        self._connection, theirs = Pipe()
        self._worker = Worker(theirs, MagicMock(deaths=()))
        self._serving = threading.Thread(target=self._serve)
        self._serving.start()

    def _serve(self) -> None:
        with suppress(EOFError, OSError):
            self._worker.serve()

    def end(self) -> None:
        self._connection.close()

    def kill(self) -> Death:
        self._connection.close()
        self._serving.join()
        self._worker.stop()
        if encoders := vars(self._worker).get("_encoders"):  # it has loaded a model
            for device in encoders._devices:
                for batcher in device._batchers:
                    batcher.close()
        LIBAV._is_stopped = False
        return unrecorded_death(None)


def rayclip(*words: str | Path, env: Mapping[str, str] | None = None) -> Finished:
    """Run ``rayclip`` in its own process, and wait for it."""
    with start_rayclip(*words, env=env) as command:
        return finish(command)


@contextmanager
def start_rayclip(
    *words: str | Path,
    env: Mapping[str, str] | None = None,
    program: Sequence[str] = ("-m", "rayclip"),
) -> Iterator[subprocess.Popen[str]]:
    """Start ``rayclip`` in its own process group; kill all its remaining processes at the end."""
    command = subprocess.Popen(
        [sys.executable, *program, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
        start_new_session=True,
        preexec_fn=_restore_sigint,
    )
    try:
        yield command
    finally:
        for process in reversed(family(command)):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for pipe in (command.stdout, command.stderr):
            if pipe is not None and not pipe.closed:
                pipe.read()
                pipe.close()
        command.wait()


def _restore_sigint() -> None:
    """Undo that background scripts ignore SIGINT, which children inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish(command: subprocess.Popen[str]) -> Finished:
    stdout, stderr = command.communicate(timeout=DEADLINE_S)
    return Finished(command.returncode, stdout, stderr)


def family(command: subprocess.Popen[str]) -> list[psutil.Process]:
    """A running command and all its descendants."""
    try:
        process = psutil.Process(command.pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def workers(command: subprocess.Popen[str], name: str) -> list[psutil.Process]:
    """The Ray processes of a command whose title starts with this name, e.g. ``ray::Encoder``."""
    return [process for process in family(command) if title(process).startswith(name)]


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def wait_until(
    condition: Callable[[], object], what: str, command: subprocess.Popen[str] | None = None
) -> None:
    """Wait for a condition; fail if it does not come true, or if the command ends first."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if command is not None and command.poll() is not None:
            raise AssertionError(f"the command ended before {what}: {command.communicate()}")
        if time.monotonic() > deadline:
            raise AssertionError(f"never: {what}")
        time.sleep(0.02)


def alive(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """The processes that still run; zombies do not count."""
    running = []
    for process in processes:
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                running.append(process)
        except psutil.NoSuchProcess:
            continue
    return running
