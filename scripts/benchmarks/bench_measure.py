"""Measure the CPU time of jobs, each in its own process."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection

MIN_S = 0.3  # CPU seconds per round: shorter work is repeated, as in a long-lived worker


@dataclass(frozen=True)
class Job:
    """Work to measure.

    Attributes:
        prepare: work that is not measured, such as imports.
        work: returns the number of items it made; repeatable.
    """

    prepare: Callable[[], None]
    work: Callable[[], int]


@dataclass(frozen=True)
class Cost:
    """The cost of a job.

    Attributes:
        made: number of items, at least 1.
        cpu_s: user and system seconds of the process, its threads and its children in each round;
            a mean if a round repeats the work.
    """

    made: int
    cpu_s: tuple[float, ...]

    @property
    def ms_each(self) -> float:
        """CPU milliseconds per item in the cheapest round: disturbances only add time."""
        return min(self.cpu_s) * 1000 / self.made


@dataclass(frozen=True)
class Failed:
    """A job that failed, and the reason."""

    reason: str


def measure(jobs: Mapping[str, Job], rounds: int) -> dict[str, Cost | Failed]:
    """Run all jobs in turn in every round, each time in a new process.

    So a slow phase of the machine affects all jobs. A failed job is not repeated.
    """
    found: dict[str, Cost | Failed] = {}
    for _ in range(rounds):
        for name, job in jobs.items():
            before = found.get(name)
            if isinstance(before, Failed):
                continue
            now = _run_in_process(job)
            if isinstance(before, Cost) and isinstance(now, Cost):
                now = Cost(now.made, before.cpu_s + now.cpu_s)
            found[name] = now
    return found


def _run_in_process(job: Job) -> Cost | Failed:
    """Run a job once in a forked process, which inherits the imports of this one."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_run, args=(job, sender))
    process.start()
    sender.close()  # so that recv fails if the process dies
    try:
        answer: Cost | Failed = receiver.recv()
    except EOFError:
        process.join()
        answer = Failed(f"its process ended with status {process.exitcode}")
    process.join()
    return answer


def _run(job: Job, sender: Connection) -> None:
    try:
        job.prepare()
        before = _cpu_s()
        made, times, spent = job.work(), 1, _cpu_s() - before
        while made and spent < MIN_S:
            made, times, spent = job.work(), times + 1, _cpu_s() - before
        sender.send(Cost(made, (spent / times,)) if made else Failed("it returned nothing"))
    except Exception as error:  # any exception of other packages
        text = " ".join(str(error).split())
        sender.send(Failed(f"{type(error).__name__}: {text}" if text else type(error).__name__))


def _cpu_s() -> float:
    """User and system seconds of this process, its threads and its ended children."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
