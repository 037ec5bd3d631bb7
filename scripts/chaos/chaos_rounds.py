"""One chaos round: a run of rayclip, a kill during the run, and a check of the result."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from chaos_checks import Finished, content, find_errors, finished, temporary_files
from simulated_nodes import DECODER, ENCODER, SimulatedNodes

DRIVER, LONE_DRIVER = "driver", "lone-driver"
DRIVERS = (DRIVER, LONE_DRIVER)
STALL_TIMEOUT_S = 240.0  # without a finished video; all of them usually take ten seconds
POLL_S = 0.05


class Hung(Exception):
    """A command did not end."""


@dataclass(frozen=True)
class Outcome:
    """The result of a round.

    Attributes:
        kind: what was killed.
        share: when it was killed, as a share of the time of an undisturbed run; None if the run
            ended first.
        redone: videos that were done before the kill but were processed again.
        wrong: sentences about everything that is wrong.
        seconds: from the start of the first command to the end of the last one.
    """

    kind: str
    share: float | None
    redone: int
    wrong: tuple[str, ...]
    seconds: float


class Command:
    """A run of rayclip in its own process."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], output: Path) -> None:
        self._output = output
        log = _log(output)
        with log.open("a") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rayclip", *words],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
            )
        self.started = time.monotonic()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.started

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def status(self) -> int:
        """Wait for the command to end, and return its exit status.

        Raises:
            Hung: it does not end, and finishes no more videos.
        """
        done, since = -1, time.monotonic()
        while (status := self._process.poll()) is None:
            now = len(finished(self._output).written_ns)
            if now != done:
                done, since = now, time.monotonic()
            if time.monotonic() - since > STALL_TIMEOUT_S:
                raise Hung(f"the command finished nothing for {STALL_TIMEOUT_S:.0f} s")
            time.sleep(POLL_S)
        return status


@dataclass(frozen=True)
class Run:
    """The run that is repeated in every round.

    Attributes:
        videos: the inputs.
        cluster: the cluster to run on; None without Ray.
        undisturbed: the content of the output folder of an undisturbed run.
        seconds: the wall time of an undisturbed run.
    """

    videos: Sequence[Path]
    cluster: SimulatedNodes | None
    undisturbed: Mapping[str, bytes]
    seconds: float

    def start(self, output: Path) -> Command:
        return _start(self.videos, self.cluster, output)


def undisturbed_run(videos: Sequence[Path], cluster: SimulatedNodes | None, output: Path) -> Run:
    """Complete one run, to measure its time and keep its output.

    Raises:
        RuntimeError: the run fails.
    """
    command = _start(videos, cluster, output)
    status = command.status()
    if status:
        raise RuntimeError(f"An undisturbed run ended with {status}: see {_log(output)}.")
    return Run(videos, cluster, content(output), command.age_s)


def _start(videos: Sequence[Path], cluster: SimulatedNodes | None, output: Path) -> Command:
    words = ["extract", *map(str, videos), "--model-name", "demo", "--device", "cpu"]
    words += ["--on-extraction", "save_numpy", "--output-path", str(output)]
    if cluster is None:
        return Command([*words, "--address", "none"], {}, output)
    words += ["--encoders", "2", "--address", cluster.address]
    return Command(words, cluster.environment, output)


def _log(output: Path) -> Path:
    return output.with_suffix(".log")


def play_round(kind: str, run: Run, output: Path, rng: random.Random) -> Outcome:
    """Start a run, kill one of its processes at a random moment, and check the result."""
    started, wrong = time.monotonic(), []
    share, before = None, Finished({})
    command = run.start(output)
    try:
        share = _kill(kind, run, command, rng.random(), rng)
        before = finished(output)
        if kind in DRIVERS and share is not None:
            command = run.start(output)
        status = command.status()
        if not status and temporary_files(output):  # of killed writers: the next run removes them
            command = run.start(output)
            status = command.status()
        if status:
            wrong.append(f"the exit status is {status}")
    except Hung as error:
        wrong.append(str(error))
    finally:
        command.kill()
    seconds = time.monotonic() - started
    if run.cluster is not None:
        wrong += [f"a process still runs: {title}" for title in run.cluster.remaining_processes()]
        run.cluster.replace_dead_nodes()
    redone = before.redone(output)
    wrong += [f"{file} was done, but was processed again" for file in redone]
    wrong += find_errors(run.undisturbed, output)
    return Outcome(kind, share, len(redone), tuple(wrong), seconds)


def _kill(kind: str, run: Run, command: Command, share: float, rng: random.Random) -> float | None:
    """Wait for the moment and for a victim, and kill it; return when, as a share of the run."""
    while command.is_running:
        if command.age_s < share * run.seconds:
            time.sleep(POLL_S)
            continue
        if kind in DRIVERS:
            command.kill()
            return command.age_s / run.seconds
        assert run.cluster is not None
        victims = VICTIMS[kind](run.cluster)
        with suppress(psutil.NoSuchProcess):
            if victims:
                rng.choice(victims).kill()
                return command.age_s / run.seconds
        time.sleep(POLL_S)
    return None


VICTIMS: Mapping[str, Callable[[SimulatedNodes], list[psutil.Process]]] = {
    "encoder": lambda cluster: cluster.workers(ENCODER),
    "decoder": lambda cluster: cluster.workers(DECODER),
    "raylet": lambda cluster: cluster.raylets(),
}
KINDS = (*VICTIMS, *DRIVERS)
