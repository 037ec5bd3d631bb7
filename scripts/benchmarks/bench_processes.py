"""Wall and CPU time of this process, and of commands with all processes that they start.

Ray's processes detach from the process that started them, and the raylet does not wait for its
workers, so no process has the CPU time of its descendants. As a child subreaper, this process
adopts all orphans below it, finds them, and samples each one while it lives.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import psutil

from rayclip.errors import RayclipError

PERIOD_S = 0.1  # between samples: CPU time after the last one is missed
WIND_DOWN_S = 20.0  # for processes that outlive their command
PR_SET_CHILD_SUBREAPER = 36
STAND_INS = str(Path(__file__).with_name("stand_ins"))


def with_stand_ins(frames: int | None = None, microseconds: float | None = None) -> dict[str, str]:
    """The environment of this process, with stand-ins for decoding and encoding.

    Args:
        frames: synthetic frames per video; None decodes.
        microseconds: how long an encoder sleeps per frame; None encodes.
    """
    variables = {
        "RAYCLIP_BENCH_SYNTHETIC_FRAMES": frames,
        "RAYCLIP_BENCH_FAKE_MICROSECONDS": microseconds,
    }
    stand_ins = {name: str(value) for name, value in variables.items() if value is not None}
    if stand_ins:
        stand_ins["PYTHONPATH"] = os.pathsep.join([STAND_INS, os.environ.get("PYTHONPATH", "")])
    return {**os.environ, **stand_ins}


@dataclass(frozen=True)
class Work:
    """An amount of work and its cost.

    Attributes:
        frames: number of frames.
        wall_s: wall time in seconds.
        cpu_s: user and system seconds of all processes.
    """

    frames: int
    wall_s: float
    cpu_s: float

    def __add__(self, other: Work) -> Work:
        return Work(
            self.frames + other.frames, self.wall_s + other.wall_s, self.cpu_s + other.cpu_s
        )

    def __sub__(self, other: Work) -> Work:
        return Work(
            self.frames - other.frames, self.wall_s - other.wall_s, self.cpu_s - other.cpu_s
        )

    @property
    def wall_ms(self) -> float:
        """Wall milliseconds per frame."""
        return self.wall_s * 1000 / self.frames

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds per frame."""
        return self.cpu_s * 1000 / self.frames


@dataclass(frozen=True)
class Ended:
    """A successful command: its standard error and its times in seconds."""

    stderr: str
    wall_s: float
    cpu_s: float


class CommandFailed(RayclipError):
    """A command failed."""


def run_command(
    words: Sequence[str], environment: Mapping[str, str], limit_s: float | None = None
) -> Ended:
    """Run a command, and wait until every process that it started has ended.

    The wall time ends with the command, the CPU time with the last process.

    Args:
        words: the command.
        environment: its environment variables.
        limit_s: seconds after which it is killed with all that it started; None waits.

    Raises:
        CommandFailed: its exit status is not 0, or it was killed.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)  # adopt its orphans
    watch = _Watch()
    started = time.perf_counter()
    with TemporaryFile("w+") as file:  # a pipe would stay open until the last process ends
        command = subprocess.Popen(
            words, env=environment, stdout=subprocess.DEVNULL, stderr=file, text=True
        )
        try:
            command.wait(limit_s)
        except subprocess.TimeoutExpired:
            command.kill()
            watch.until_all_ended(wind_down_s=0)
            raise CommandFailed(f"did not end within {limit_s:.0f} s") from None
        wall_s = time.perf_counter() - started
        cpu_s = watch.until_all_ended(WIND_DOWN_S)
        file.seek(0)
        stderr = file.read()
    if command.returncode:
        last = (stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise CommandFailed(f"{' '.join(words[:4])} ... ended with {command.returncode}: {last}")
    return Ended(stderr, wall_s, cpu_s)


class _Watch:
    """Samples the descendants of this process that are started later, on a thread."""

    def __init__(self) -> None:
        self._before = {process.pid for process in _descendants()}
        self._cpu_s: dict[psutil.Process, float] = {}
        self._wind_down_s = WIND_DOWN_S
        self._command_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def until_all_ended(self, wind_down_s: float) -> float:
        """Wait for all of them after the command has ended; return their CPU seconds.

        Args:
            wind_down_s: seconds after which they are killed.
        """
        self._wind_down_s = wind_down_s
        self._command_ended.set()
        self._thread.join()
        return sum(self._cpu_s.values())

    def _run(self) -> None:
        while not self._command_ended.wait(PERIOD_S):
            self._sample()
        deadline = time.monotonic() + self._wind_down_s
        while remaining := self._sample():
            for process in remaining:
                with suppress(psutil.NoSuchProcess, ChildProcessError):
                    if time.monotonic() > deadline:
                        process.kill()
                    if process.ppid() == os.getpid():
                        os.waitpid(process.pid, os.WNOHANG)  # adopted; reap it if it is dead
            time.sleep(PERIOD_S / 10)

    def _sample(self) -> list[psutil.Process]:
        """Record the CPU time of each process so far; return them all, zombies included."""
        found = [process for process in _descendants() if process.pid not in self._before]
        for process in found:
            with suppress(psutil.NoSuchProcess):
                self._cpu_s[process] = _cpu_s(process)
        return found


def total_cpu_s() -> float:
    """User and system seconds of this process and its current descendants."""
    total = 0.0
    for process in [psutil.Process(), *_descendants()]:
        with suppress(psutil.NoSuchProcess):
            total += _cpu_s(process)
    return total


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
