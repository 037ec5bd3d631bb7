"""The encoders that a control actor starts, hears of, and releases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from typing import Any, NamedTuple

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayError, RayTaskError

from rayclip.actors.credits import FIRST_FRAMES, Terms
from rayclip.actors.encoder import Encoder, EncoderReport, EncoderSettings
from rayclip.errors import RunStopped
from rayclip.report.batch_stats import BatchStats
from rayclip.session.resources import EncoderResources

ENCODE_CALLS_AT_ONCE = 256
REPORT_TIMEOUT_S = 1.0
CONTROL = "control"  # calls of this group do not wait for frames to be encoded
SILENT_S = 15.0  # without an answer, after which an encoder gets no more frames


@dataclass(frozen=True)
class EncoderAddress:
    """An encoder that is up.

    Attributes:
        index: its number.
        handle: of the actor.
        node_id: where it is.
        terms: for a task that it does not know yet, by what was heard of it last.
    """

    index: int
    handle: Any
    node_id: str
    terms: Terms


class Directory(NamedTuple):
    """What a task is told of the encoders.

    Attributes:
        encoders: those that are up.
        keeps_cpus: whether a task that waits keeps its CPUs, because nobody else wants them:
            neither other runs, or steps of a pipeline, that share the devices, nor encoders.
    """

    encoders: list[EncoderAddress]
    keeps_cpus: bool


class Fleet:
    """Encoders, numbered in the order in which they were started; no number is used twice."""

    def __init__(self, settings: EncoderSettings, checkpoint: bytes | None) -> None:
        """Prepare to start encoders.

        Args:
            settings: of each; the threads are those of the resources that it gets.
            checkpoint: the content of a checkpoint that other nodes may not have.
        """
        self._settings = settings
        # Held on to: an encoder that is started again needs its arguments again.
        self._content = None if checkpoint is None else ray.put(checkpoint)
        self._size: EncoderResources | None = None
        self._handles: list[Any] = []
        self._starting: dict[asyncio.Task[str], int] = {}
        self._placing: dict[int, asyncio.Task[None]] = {}
        self._up: dict[int, str] = {}
        self._asked: dict[int, asyncio.Task[EncoderReport]] = {}
        self._answered: dict[int, float] = {}
        self._reasons: list[str] = []
        self._given_up: set[int] = set()
        self._work: dict[tuple[int, int], BatchStats] = {}
        self._waiting: dict[int, int] = {}
        self._rates: dict[int, float] = {}

    def __bool__(self) -> bool:
        """Whether encoders are up or starting, or failed to start."""
        return bool(self._up or self._starting or self._reasons)

    def fit(self, resources: EncoderResources, nodes: Collection[str]) -> None:
        """Have as many encoders as this, and of this size, on the nodes with these ids.

        Those that are missing are started, and come up when there is room for them on the nodes.
        Those that are of another size are ended first. None is ended for being one too many: its
        node is gone, and it waits for another. None takes the place of one that fails again and
        again, whose device is still there.
        """
        for index in [index for index in self._given_up if self._up[index] not in nodes]:
            self._forget(index)
        if self._size is not None and self._size.size != resources.size:
            self.release()
        self._size = resources
        living = len({*self._up, *self._starting.values()} - self._given_up)
        for _ in range(resources.encoders - len(self._reasons) - len(self._given_up) - living):
            self._start(resources)

    def _start(self, resources: EncoderResources) -> None:
        options: dict[str, Any] = {
            "num_cpus": resources.cpus,
            "num_gpus": resources.gpus,
            "max_restarts": -1,
            "max_task_retries": -1,
            "max_concurrency": ENCODE_CALLS_AT_ONCE,
            "concurrency_groups": {CONTROL: 4},
            "scheduling_strategy": "SPREAD",
        }
        settings = replace(self._settings, threads=resources.threads)
        handle = ray.remote(**options)(Encoder).remote(settings, self._content)
        index = len(self._handles)
        self._handles.append(handle)
        self._waiting[index] = 0
        self._starting[asyncio.create_task(_ready(handle))] = index
        self._placing[index] = asyncio.create_task(_placed(handle))

    def release(self) -> None:
        """End all encoders, and free what they hold; others may be started later, also in place of
        those that failed."""
        for index in [*self._up, *self._starting.values()]:
            ray.kill(self._handles[index])
        for task in (*self._starting, *self._placing.values(), *self._asked.values()):
            task.cancel()
        told = (self._asked, self._answered, self._waiting, self._reasons, self._given_up)
        for memory in (self._up, self._starting, self._placing, *told):
            memory.clear()

    async def addresses(self, without: frozenset[int]) -> list[EncoderAddress]:
        """Wait until an encoder is up, and give all that are; none where there can be no more.

        Those that are silent, as when their nodes are gone, are left out while others answer.

        Raises:
            RunStopped: none can start.
        """
        self._collect_started()
        while not (up := [i for i in self._up if i not in without | self._given_up]):
            if not self._starting and self._up:
                return []
            if not self._starting:
                raise RunStopped(self._reasons[-1])
            await asyncio.wait(self._starting, return_when=asyncio.FIRST_COMPLETED)
            self._collect_started()
        now = time.monotonic()
        answering = [i for i in up if now - self._answered[i] < SILENT_S]
        return [self._address(index) for index in answering or up]

    def _address(self, index: int) -> EncoderAddress:
        terms = Terms(self._waiting[index], FIRST_FRAMES, self._rates.get(index, 0.0))
        return EncoderAddress(index, self._handles[index], self._up[index], terms)

    async def hear(self) -> int:
        """Ask all encoders for their reports, and say how many could encode and said so in time.

        One that has not answered is not asked again until it has: what is asked of an encoder whose
        node is gone waits, in Ray, until there is another.
        """
        begun = time.monotonic()
        self._collect_started()
        self._collect_reports()
        for index in self._up:
            if index not in self._asked:
                self._asked[index] = asyncio.create_task(_report(self._handles[index]))
        if not self._asked:
            return 0
        await asyncio.wait(list(self._asked.values()), timeout=REPORT_TIMEOUT_S)
        self._collect_reports()
        return sum(answered >= begun for answered in self._answered.values())

    def _collect_reports(self) -> None:
        for index in [index for index, task in self._asked.items() if task.done()]:
            task = self._asked.pop(index)
            error = task.exception()
            if error is None:
                self._note(index, task.result())
            elif left_for_good(error):
                self._given_up.add(index)
            elif isinstance(error, ActorDiedError):  # Ray could not start it again
                self._forget(index)

    def _forget(self, index: int) -> None:
        """Let another take the place of this one."""
        del self._up[index], self._answered[index], self._waiting[index]
        self._given_up.discard(index)
        if index in self._asked:
            self._asked.pop(index).cancel()

    def _note(self, index: int, report: EncoderReport) -> None:
        self._up[index] = report.node_id
        # One that loads its model again is as good as silent: what it has would wait for that.
        self._answered[index] = time.monotonic() if report.is_loaded else -inf
        self._work[index, report.process] = report.work
        self._waiting[index] = report.waiting
        self._rates[index] = report.rate

    @property
    def work(self) -> tuple[BatchStats, ...]:
        """What each encoder did, over all its lives, as far as it was heard of."""
        work = [BatchStats() for _ in self._handles]
        for (index, _), stats in self._work.items():
            work[index] += stats
        return tuple(work)

    @property
    def waiting(self) -> tuple[int, ...]:
        """Frames that are with each encoder, as far as it was heard of."""
        return tuple(self._waiting.get(index, 0) for index in range(len(self._handles)))

    @property
    def waits_for_room(self) -> bool:
        """Whether an encoder has no node yet."""
        return not all(placing.done() for placing in self._placing.values())

    @property
    def placed(self) -> int:
        """Encoders for which there was room on a node."""
        return sum(placing.done() for placing in self._placing.values())

    def _collect_started(self) -> None:
        for task in [task for task in self._starting if task.done()]:
            index = self._starting.pop(task)
            error = task.exception()
            if error is None:
                self._up[index] = task.result()
                self._answered[index] = time.monotonic()
            elif left_for_good(error):
                self._reasons.append(
                    "No encoder can start: their processes die again and again while they load the "
                    "model, as they do where memory is short."
                )
            else:
                self._reasons.append(reason_of(error))


def left_for_good(error: BaseException) -> bool:
    """Whether an encoder does not come back because it died too often."""
    return isinstance(error, RayActorError) and error.actor_init_failed


def reason_of(error: BaseException) -> str:
    """The first line of what really happened, without Ray's wrapping."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        while isinstance(cause, RayTaskError):
            cause = cause.cause
        error = cause or error
    return f"{str(error).strip().partition(chr(10))[0] or type(error).__name__}"


async def _placed(handle: Any) -> None:
    with suppress(RayError):  # whoever waits for it to be up will see
        await handle.placed.options(concurrency_group=CONTROL).remote()


async def _ready(handle: Any) -> str:
    node_id: str = await handle.ready.options(concurrency_group=CONTROL).remote()
    return node_id


async def _report(handle: Any) -> EncoderReport:
    answer: EncoderReport = await handle.report.options(concurrency_group=CONTROL).remote()
    return answer
