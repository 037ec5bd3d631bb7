"""Interrupts at random moments of runs: each ends the command in order, with its own status."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""Signal -> the exit status that shells expect of it."""
ADDRESSES = ("none", "local")
EARLIEST_S = 0.1  # before, Python itself is starting
DEADLINE_S = 60.0
LEFT_S = 15.0  # for processes of Ray to end after the command
LOOK_S = 0.02
FOLDER = re.compile(r"(?:temp[-_]dir=|reaper\.py )(/tmp/rayclip-[^/\s]+)")
SIGNS_OF_TROUBLE = ("Traceback", "terminate called", "Exception ignored", "Fatal Python error")


@dataclass(frozen=True)
class Interrupt:
    """What became of a run that was interrupted.

    Attributes:
        address: ``none`` or ``local``.
        number: of the signal.
        at_s: seconds after the command was started.
        is_late: whether the run had ended in order before.
        end_s: seconds from the signal to the end.
        wrong: all that is not as it should be, in sentences.
    """

    address: str
    number: signal.Signals
    at_s: float
    is_late: bool
    end_s: float
    wrong: tuple[str, ...]


def command(videos: Sequence[Path], output: Path, address: str) -> list[str]:
    words = [sys.executable, "-m", "rayclip", "extract", *map(str, videos)]
    words += ["--model-name", "demo", "--device", "cpu", "--on-extraction", "save_numpy"]
    return [*words, "--output-path", str(output), "--address", address]


def seconds_of(videos: Sequence[Path], output: Path, address: str) -> float:
    """How long an undisturbed run takes."""
    started = time.monotonic()
    words = command(videos, output, address)
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - started


def interrupted(
    videos: Sequence[Path], output: Path, address: str, number: signal.Signals, at_s: float
) -> Interrupt:
    """Start a run, and send it a signal at a moment."""
    process = subprocess.Popen(
        command(videos, output, address),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_listen,
    )
    threading.Event().wait(at_s)
    children: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
    folders = _folders_of(children)
    process.send_signal(number)
    sent = time.monotonic()
    try:
        _, said = process.communicate(timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        _, said = process.communicate()
    end_s = time.monotonic() - sent
    wrong = []
    # Ray gives SIGTERM back to the system while it shuts down: shells call that 143, too
    is_late = process.returncode == 0 or (process.returncode == -number and "features: " in said)
    if not is_late and process.returncode != SIGNALS[number]:
        wrong.append(f"its status is {process.returncode}: {said[-1500:]!r}")
    wrong += [f"it says {sign!r}: {said[-500:]!r}" for sign in SIGNS_OF_TROUBLE if sign in said]
    deadline = time.monotonic() + LEFT_S
    while time.monotonic() < deadline and (_alive(children) or any(map(os.path.exists, folders))):
        time.sleep(LOOK_S)
    wrong += [f"a process is left: {' '.join(child.cmdline())}" for child in _alive(children)]
    wrong += [f"a folder is left: {folder}" for folder in folders if os.path.exists(folder)]
    return Interrupt(address, number, at_s, is_late, end_s, tuple(wrong))


def random_interrupt(
    videos: Sequence[Path], output: Path, address: str, seconds: float, rng: random.Random
) -> Interrupt:
    """One at a random moment of a run that takes so many seconds."""
    number = rng.choice(list(SIGNALS))
    return interrupted(videos, output, address, number, rng.uniform(EARLIEST_S, seconds))


def _listen() -> None:
    """A script in the background ignores SIGINT, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _folders_of(processes: Sequence[psutil.Process]) -> set[str]:
    """The temporary folder of the private Ray that some of these processes are, or put away."""
    words = []
    for process in processes:
        with suppress(psutil.Error):
            words.append(" ".join(process.cmdline()))
    return set(FOLDER.findall("\n".join(words)))


def _alive(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    running = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                running.append(process)
    return running
