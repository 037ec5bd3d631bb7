"""One round of chaos: a run of rayclip, a kill in the middle of it, and what became of it."""

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
from chaos_checks import Finished, content, finished, temporary_files, what_is_wrong
from pretended_nodes import DECODER, ENCODER, PretendedNodes

DRIVER, LONE_DRIVER = "driver", "lone-driver"
DRIVERS = (DRIVER, LONE_DRIVER)
PATIENCE_S = 240.0  # with a command that finishes no video; ten seconds are usual for all of them
LOOK_S = 0.05


class Hung(Exception):
    """A command did not end."""


@dataclass(frozen=True)
class Outcome:
    """What a round came to.

    Attributes:
        kind: what was killed.
        share: when, as a share of the time that an undisturbed run takes; None where the run
            ended before anything could be killed.
        redone: videos that were done before the kill and were made again after it.
        wrong: all that is not as it should be, in sentences.
        seconds: from the first command to the end of the last.
    """

    kind: str
    share: float | None
    redone: int
    wrong: tuple[str, ...]
    seconds: float


class Command:
    """A run of rayclip in a process of its own."""

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
        """Wait for its end.

        Raises:
            Hung: it does not come, and no video is finished any more.
        """
        done, since = -1, time.monotonic()
        while (status := self._process.poll()) is None:
            now = len(finished(self._output).written_ns)
            if now != done:
                done, since = now, time.monotonic()
            if time.monotonic() - since > PATIENCE_S:
                raise Hung(f"the command finished nothing for {PATIENCE_S:.0f} s")
            time.sleep(LOOK_S)
        return status


@dataclass(frozen=True)
class Run:
    """What is done in every round.

    Attributes:
        videos: the inputs.
        cluster: where; None without Ray.
        undisturbed: the content of the output folder when nothing happens.
        seconds: how long it takes then.
    """

    videos: Sequence[Path]
    cluster: PretendedNodes | None
    undisturbed: Mapping[str, bytes]
    seconds: float

    def start(self, output: Path) -> Command:
        return _start(self.videos, self.cluster, output)


def undisturbed_run(videos: Sequence[Path], cluster: PretendedNodes | None, output: Path) -> Run:
    """Let a run come to its end, to know how long it takes and what it gives.

    Raises:
        RuntimeError: it fails by itself.
    """
    command = _start(videos, cluster, output)
    status = command.status()
    if status:
        raise RuntimeError(f"A run without any damage ended with {status}: see {_log(output)}.")
    return Run(videos, cluster, content(output), command.age_s)


def _start(videos: Sequence[Path], cluster: PretendedNodes | None, output: Path) -> Command:
    words = ["extract", *map(str, videos), "--model-name", "demo", "--device", "cpu"]
    words += ["--on-extraction", "save_numpy", "--output-path", str(output)]
    if cluster is None:
        return Command([*words, "--address", "none"], {}, output)
    words += ["--encoders", "2", "--address", cluster.address]
    return Command(words, cluster.environment, output)


def _log(output: Path) -> Path:
    return output.with_suffix(".log")


def play_round(kind: str, run: Run, output: Path, rng: random.Random) -> Outcome:
    """Start a run, kill something of it at a random moment, and look at what comes out."""
    started, wrong = time.monotonic(), []
    share, before = None, Finished({})
    command = run.start(output)
    try:
        share = _kill(kind, run, command, rng.random(), rng)
        before = finished(output)
        if kind in DRIVERS and share is not None:
            command = run.start(output)
        status = command.status()
        if not status and temporary_files(output):  # of the killed: the next run clears up
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
        wrong += [f"a process is left: {title}" for title in run.cluster.left_by_run()]
        run.cluster.replace_dead_nodes()
    redone = before.redone(output)
    wrong += [f"{file} was done, and was made again" for file in redone]
    wrong += what_is_wrong(run.undisturbed, output)
    return Outcome(kind, share, len(redone), tuple(wrong), seconds)


def _kill(kind: str, run: Run, command: Command, share: float, rng: random.Random) -> float | None:
    """Wait for the moment, and from then on for a victim; when it was killed."""
    while command.is_running:
        if command.age_s < share * run.seconds:
            time.sleep(LOOK_S)
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
        time.sleep(LOOK_S)
    return None


VICTIMS: Mapping[str, Callable[[PretendedNodes], list[psutil.Process]]] = {
    "encoder": lambda cluster: cluster.workers(ENCODER),
    "decoder": lambda cluster: cluster.workers(DECODER),
    "raylet": lambda cluster: cluster.raylets(),
}
KINDS = (*VICTIMS, *DRIVERS)
