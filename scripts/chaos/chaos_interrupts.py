"""Interrupt runs at random moments: each signal ends the command cleanly, with its own status."""

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
"""Signal -> the exit status that shells expect after it."""
ADDRESSES = ("none", "local")
MIN_DELAY_S = 0.1  # earlier, Python itself is still starting
DEADLINE_S = 60.0
CLEANUP_S = 15.0  # for Ray's processes to end after the command
POLL_S = 0.02
FOLDER = re.compile(r"(?:temp[-_]dir=|reaper\.py )(/tmp/rayclip-[^/\s]+)")
SIGNS_OF_TROUBLE = ("Traceback", "terminate called", "Exception ignored", "Fatal Python error")


@dataclass(frozen=True)
class Interrupt:
    """The result of a run that was interrupted.

    Attributes:
        address: ``none`` or ``local``.
        number: the signal.
        at_s: seconds from the start of the command to the signal.
        is_late: whether the run had already ended normally.
        end_s: seconds from the signal to the end.
        wrong: sentences about everything that is wrong.
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


def time_run(videos: Sequence[Path], output: Path, address: str) -> float:
    """The wall time of an undisturbed run, in seconds."""
    started = time.monotonic()
    words = command(videos, output, address)
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - started


def interrupt(
    videos: Sequence[Path], output: Path, address: str, number: signal.Signals, at_s: float
) -> Interrupt:
    """Start a run, and send it a signal after ``at_s`` seconds."""
    process = subprocess.Popen(
        command(videos, output, address),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_restore_sigint,
    )
    threading.Event().wait(at_s)
    children: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
    folders = _ray_folders(children)
    process.send_signal(number)
    sent = time.monotonic()
    try:
        _, stderr = process.communicate(timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        _, stderr = process.communicate()
    end_s = time.monotonic() - sent
    wrong = []
    # Ray restores the default SIGTERM during its shutdown: shells report 143 for that, too.
    is_late = process.returncode == 0 or (process.returncode == -number and "features: " in stderr)
    if not is_late and process.returncode != SIGNALS[number]:
        wrong.append(f"its status is {process.returncode}: {stderr[-1500:]!r}")
    wrong += [
        f"its standard error has {sign!r}: {stderr[-500:]!r}"
        for sign in SIGNS_OF_TROUBLE
        if sign in stderr
    ]
    deadline = time.monotonic() + CLEANUP_S
    while time.monotonic() < deadline and (_alive(children) or any(map(os.path.exists, folders))):
        time.sleep(POLL_S)
    wrong += [f"a process still runs: {' '.join(child.cmdline())}" for child in _alive(children)]
    wrong += [f"a folder still exists: {folder}" for folder in folders if os.path.exists(folder)]
    return Interrupt(address, number, at_s, is_late, end_s, tuple(wrong))


def random_interrupt(
    videos: Sequence[Path], output: Path, address: str, seconds: float, rng: random.Random
) -> Interrupt:
    """Interrupt a run that takes ``seconds`` at a random moment."""
    number = rng.choice(list(SIGNALS))
    return interrupt(videos, output, address, number, rng.uniform(MIN_DELAY_S, seconds))


def _restore_sigint() -> None:
    """Undo that background scripts ignore SIGINT, which their children inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _ray_folders(processes: Sequence[psutil.Process]) -> set[str]:
    """The temporary folders of private Rays that these processes belong to, or clean up."""
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
