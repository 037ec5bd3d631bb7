"""Time and CPU time of work in this process, and of commands with all processes that they start.

Ray's processes leave the process that started them behind, and Ray's raylet does not wait for its
workers, so no process can be asked for what those below it used. Linux lets a process adopt all
orphans below it; so they can be found, and each is looked at every so often while it lives.
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

PERIOD_S = 0.1  # between two looks: what a process does after the last one is not seen
WIND_DOWN_S = 20.0  # for processes that outlive their command
PR_SET_CHILD_SUBREAPER = 36
STAND_INS = str(Path(__file__).with_name("stand_ins"))


def with_stand_ins(frames: int | None = None, microseconds: float | None = None) -> dict[str, str]:
    """This process's environment, with stand-ins for what costs the machinery nothing.

    Args:
        frames: ready ones, of which every video is made; None decodes.
        microseconds: that an encoder sleeps for each frame; None encodes.
    """
    wished = {
        "RAYCLIP_BENCH_SYNTHETIC_FRAMES": frames,
        "RAYCLIP_BENCH_FAKE_MICROSECONDS": microseconds,
    }
    stand_ins = {name: str(wish) for name, wish in wished.items() if wish is not None}
    if stand_ins:
        stand_ins["PYTHONPATH"] = os.pathsep.join([STAND_INS, os.environ.get("PYTHONPATH", "")])
    return {**os.environ, **stand_ins}


@dataclass(frozen=True)
class Work:
    """Something that was done.

    Attributes:
        frames: that were given.
        wall_s: seconds from its beginning to its end.
        cpu_s: user and system seconds of all processes together.
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
        """Milliseconds for a frame."""
        return self.wall_s * 1000 / self.frames

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds for a frame."""
        return self.cpu_s * 1000 / self.frames


@dataclass(frozen=True)
class Ended:
    """A command that ended well: what it said on standard error, and its time."""

    stderr: str
    wall_s: float
    cpu_s: float


class CommandFailed(RayclipError):
    """A command that did not end well, in a sentence."""


def run_command(words: Sequence[str], environment: Mapping[str, str]) -> Ended:
    """Run a command and wait until every process that it started is gone.

    Its time ends with the command; its CPU time with the last process.

    Raises:
        CommandFailed: its exit status is not 0.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)  # adopt what it leaves behind
    watch = _Watch()
    started = time.perf_counter()
    with TemporaryFile("w+") as file:  # a pipe would be open until the last process is gone
        command = subprocess.Popen(
            words, env=environment, stdout=subprocess.DEVNULL, stderr=file, text=True
        )
        command.wait()
        wall_s = time.perf_counter() - started
        cpu_s = watch.until_all_ended()
        file.seek(0)
        stderr = file.read()
    if command.returncode:
        last = (stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise CommandFailed(f"{' '.join(words[:4])} ... ended with {command.returncode}: {last}")
    return Ended(stderr, wall_s, cpu_s)


class _Watch:
    """Looks, on a thread, at the processes below this one that come after it was made."""

    def __init__(self) -> None:
        self._before = {process.pid for process in _below()}
        self._cpu_s: dict[psutil.Process, float] = {}
        self._command_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def until_all_ended(self) -> float:
        """Wait for all of them, when the command was waited for; their CPU seconds."""
        self._command_ended.set()
        self._thread.join()
        return sum(self._cpu_s.values())

    def _run(self) -> None:
        while not self._command_ended.wait(PERIOD_S):
            self._look()
        deadline = time.monotonic() + WIND_DOWN_S
        while left := self._look():
            for process in left:
                with suppress(psutil.NoSuchProcess, ChildProcessError):
                    if time.monotonic() > deadline:
                        process.kill()
                    if process.ppid() == os.getpid():
                        os.waitpid(process.pid, os.WNOHANG)  # it was adopted, and may be dead
            time.sleep(PERIOD_S / 10)

    def _look(self) -> list[psutil.Process]:
        """Note what each has used so far; gives those that are there, dead or alive."""
        found = [process for process in _below() if process.pid not in self._before]
        for process in found:
            with suppress(psutil.NoSuchProcess):
                self._cpu_s[process] = _cpu_s(process)
        return found


def cpu_s_of_family() -> float:
    """User and system seconds of this process and of all that are below it now."""
    total = 0.0
    for process in [psutil.Process(), *_below()]:
        with suppress(psutil.NoSuchProcess):
            total += _cpu_s(process)
    return total


def _below() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
