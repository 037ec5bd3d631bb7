"""The encoders that a control actor starts, hears of, and releases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from math import inf
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError

from rayclip.actors.encoder import Encoder, EncoderSettings
from rayclip.actors.messages import EncoderAddress, EncoderReport
from rayclip.actors.ray_calls import left_for_good, reason_of
from rayclip.errors import RunStopped
from rayclip.report.run_stats import BatchStats
from rayclip.session.resources import EncoderResources

MAX_REQUESTS = 10_000  # that wait in an encoder: calls beyond them would wait in Ray
REPORT_TIMEOUT_S = 1.0
SILENT_S = 15.0  # without an answer, after which an encoder gets no more frames


class EncoderPool:
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

    def __bool__(self) -> bool:
        """Whether encoders are up or starting, or failed to start."""
        return bool(self._up or self._starting or self._reasons)

    def fit(self, resources: EncoderResources, nodes: Collection[str]) -> None:
        """Have as many encoders as this on the nodes with these ids.

        Those that are missing are started, and come up when there is room for them on the nodes.
        None is ended for being one too many: its node is gone, and it waits for another. None takes
        the place of one that fails again and again, whose device is still there.
        """
        for index in [index for index in self._given_up if self._up[index] not in nodes]:
            self._forget(index)
        living = len({*self._up, *self._starting.values()} - self._given_up)
        for _ in range(resources.encoders - len(self._reasons) - len(self._given_up) - living):
            self._start(resources)

    def _start(self, resources: EncoderResources) -> None:
        options: dict[str, Any] = {
            "num_cpus": resources.cpus,
            "num_gpus": resources.gpus,
            "max_restarts": -1,
            "max_task_retries": -1,
            "max_concurrency": MAX_REQUESTS,
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
        answering = [index for index in up if self._answers(index)]
        return [self._address(index) for index in answering or up]

    def _answers(self, index: int) -> bool:
        return time.monotonic() - self._answered[index] < SILENT_S

    @property
    def answers(self) -> bool:
        """Whether an encoder was heard of lately, and could encode."""
        return any(map(self._answers, self._up))

    def _address(self, index: int) -> EncoderAddress:
        return EncoderAddress(index, self._handles[index], self._up[index])

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


async def _placed(handle: Any) -> None:
    with suppress(RayError):  # whoever waits for it to be up will see
        await handle.placed.remote()


async def _ready(handle: Any) -> str:
    node_id: str = await handle.ready.remote()
    return node_id


async def _report(handle: Any) -> EncoderReport:
    answer: EncoderReport = await handle.report.remote()
    return answer
