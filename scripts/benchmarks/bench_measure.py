"""CPU time of pieces of work, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection

MIN_S = 0.3  # CPU seconds of a round: shorter work is repeated, as a long-lived worker would


@dataclass(frozen=True)
class Job:
    """A piece of work that can be measured.

    Attributes:
        prepare: what is not measured, such as imports.
        work: gives how many things it made; the same when it is done again.
    """

    prepare: Callable[[], None]
    work: Callable[[], int]


@dataclass(frozen=True)
class Cost:
    """What a job cost in every round.

    Attributes:
        made: how many things it makes, at least one.
        cpu_s: user and system seconds of the process with all its threads and children, one for
            each round; a mean where a round repeats the work.
    """

    made: int
    cpu_s: tuple[float, ...]

    @property
    def ms_each(self) -> float:
        """Milliseconds for one thing in the cheapest round: a disturbance only ever adds."""
        return min(self.cpu_s) * 1000 / self.made


@dataclass(frozen=True)
class Failed:
    """A job that could not be done, and a sentence that says why."""

    reason: str


def measure(jobs: Mapping[str, Job], rounds: int) -> dict[str, Cost | Failed]:
    """Do all jobs in turn, as often as there are rounds, each time in a fresh process.

    A slow minute of the machine so meets all jobs alike. A job that fails is not done again.
    """
    found: dict[str, Cost | Failed] = {}
    for _ in range(rounds):
        for name, job in jobs.items():
            before = found.get(name)
            if isinstance(before, Failed):
                continue
            now = _in_a_process(job)
            if isinstance(before, Cost) and isinstance(now, Cost):
                now = Cost(now.made, before.cpu_s + now.cpu_s)
            found[name] = now
    return found


def _in_a_process(job: Job) -> Cost | Failed:
    """Do a job once, in a forked process: what is imported here need not be imported there."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_do, args=(job, sender))
    process.start()
    sender.close()  # so that the end of the process is the end of the pipe
    try:
        answer: Cost | Failed = receiver.recv()
    except EOFError:
        process.join()
        answer = Failed(f"its process ended with status {process.exitcode}")
    process.join()
    return answer


def _do(job: Job, sender: Connection) -> None:
    try:
        job.prepare()
        before = _cpu_s()
        made, times, spent = job.work(), 1, _cpu_s() - before
        while made and spent < MIN_S:
            made, times, spent = job.work(), times + 1, _cpu_s() - before
        sender.send(Cost(made, (spent / times,)) if made else Failed("it gave nothing"))
    except Exception as error:  # whatever other people's packages raise
        text = " ".join(str(error).split())
        sender.send(Failed(f"{type(error).__name__}: {text}" if text else type(error).__name__))


def _cpu_s() -> float:
    """User and system seconds of this process, of all its threads and of children that ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
