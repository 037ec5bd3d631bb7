"""The encoders that a control actor starts, polls and releases."""

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
from rayclip.actors.ray_calls import is_permanent, root_cause
from rayclip.errors import RunStopped
from rayclip.report.run_stats import BatchStats
from rayclip.session.resources import EncoderResources

MAX_REQUESTS = 10_000  # in an encoder; further calls would wait in Ray
REPORT_TIMEOUT_S = 1.0
SILENT_S = 15.0  # without a report, then an encoder gets no more frames


class EncoderPool:
    """Encoders, numbered in the order in which they were started; no number is used twice."""

    def __init__(self, settings: EncoderSettings, checkpoint: bytes | None) -> None:
        """Prepare to start encoders.

        Args:
            settings: of each encoder; the number of threads comes from its resources.
            checkpoint: content of a checkpoint that other nodes may not have.
        """
        self._settings = settings
        # Kept: an encoder that Ray restarts needs its arguments again.
        self._content = None if checkpoint is None else ray.put(checkpoint)
        self._handles: list[Any] = []
        self._starting: dict[asyncio.Task[str], int] = {}
        self._placing: dict[int, asyncio.Task[None]] = {}
        self._up: dict[int, str] = {}
        self._polls: dict[int, asyncio.Task[EncoderReport]] = {}
        self._last_report_s: dict[int, float] = {}
        self._reasons: list[str] = []
        self._given_up: set[int] = set()
        self._work: dict[tuple[int, int], BatchStats] = {}
        self._waiting: dict[int, int] = {}

    def __bool__(self) -> bool:
        """Whether encoders are up or starting, or failed to start."""
        return bool(self._up or self._starting or self._reasons)

    def grow_to(self, resources: EncoderResources, nodes: Collection[str]) -> None:
        """Start encoders until there are this many.

        They come up when the nodes have room for them. Surplus encoders are never stopped: their
        node is gone, and they wait for another. An encoder that was given up is not replaced while
        its node is alive, because its device is still there.

        Args:
            resources: how many encoders there should be, and what each requests.
            nodes: ids of the nodes that are alive.
        """
        for index in [index for index in self._given_up if self._up[index] not in nodes]:
            self._remove(index)
        alive = len({*self._up, *self._starting.values()} - self._given_up)
        for _ in range(resources.encoders - len(self._reasons) - len(self._given_up) - alive):
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
        """Stop all encoders and free what they hold. Others may be started later, also in place of
        those that failed."""
        for index in [*self._up, *self._starting.values()]:
            ray.kill(self._handles[index])
        for task in (*self._starting, *self._placing.values(), *self._polls.values()):
            task.cancel()
        reported = (self._polls, self._last_report_s, self._waiting, self._reasons, self._given_up)
        for state in (self._up, self._starting, self._placing, *reported):
            state.clear()

    async def addresses(self, exclude: frozenset[int]) -> list[EncoderAddress]:
        """Wait until an encoder is up, and return all that are; none if no encoder can come up any
        more.

        Silent encoders, such as those of lost nodes, are left out while others respond.

        Raises:
            RunStopped: no encoder can start.
        """
        self._collect_started()
        while not (up := [i for i in self._up if i not in exclude | self._given_up]):
            if not self._starting and self._up:
                return []
            if not self._starting:
                raise RunStopped(self._reasons[-1])
            await asyncio.wait(self._starting, return_when=asyncio.FIRST_COMPLETED)
            self._collect_started()
        responsive = [index for index in up if self._is_responsive(index)]
        return [self._address(index) for index in responsive or up]

    def _is_responsive(self, index: int) -> bool:
        return time.monotonic() - self._last_report_s[index] < SILENT_S

    @property
    def is_responsive(self) -> bool:
        """Whether an encoder reported recently and could encode."""
        return any(map(self._is_responsive, self._up))

    def _address(self, index: int) -> EncoderAddress:
        return EncoderAddress(index, self._handles[index], self._up[index])

    async def poll(self) -> int:
        """Request a report of each encoder, and return how many reported in time that they can
        encode.

        An encoder with an unanswered request is not asked again: if its node is gone, Ray holds the
        request until there is another node.
        """
        started = time.monotonic()
        self._collect_started()
        self._collect_reports()
        for index in self._up:
            if index not in self._polls:
                self._polls[index] = asyncio.create_task(_report(self._handles[index]))
        if not self._polls:
            return 0
        await asyncio.wait(list(self._polls.values()), timeout=REPORT_TIMEOUT_S)
        self._collect_reports()
        return sum(reported >= started for reported in self._last_report_s.values())

    def _collect_reports(self) -> None:
        for index in [index for index, task in self._polls.items() if task.done()]:
            task = self._polls.pop(index)
            error = task.exception()
            if error is None:
                self._record(index, task.result())
            elif is_permanent(error):
                self._given_up.add(index)
            elif isinstance(error, ActorDiedError):  # Ray could not restart it
                self._remove(index)

    def _remove(self, index: int) -> None:
        """Remove an encoder, so that another can take its place."""
        del self._up[index], self._last_report_s[index], self._waiting[index]
        self._given_up.discard(index)
        if index in self._polls:
            self._polls.pop(index).cancel()

    def _record(self, index: int, report: EncoderReport) -> None:
        self._up[index] = report.node_id
        # An encoder that reloads its model counts as silent: requests would wait for the model.
        self._last_report_s[index] = time.monotonic() if report.is_loaded else -inf
        self._work[index, report.process] = report.work
        self._waiting[index] = report.waiting

    @property
    def work(self) -> tuple[BatchStats, ...]:
        """What each encoder has done over all its processes, by the last reports."""
        work = [BatchStats() for _ in self._handles]
        for (index, _), stats in self._work.items():
            work[index] += stats
        return tuple(work)

    @property
    def waiting(self) -> tuple[int, ...]:
        """Frames that each encoder holds, by the last reports."""
        return tuple(self._waiting.get(index, 0) for index in range(len(self._handles)))

    @property
    def placed(self) -> int:
        """Number of encoders that Ray has placed on a node."""
        return sum(placing.done() for placing in self._placing.values())

    def _collect_started(self) -> None:
        for task in [task for task in self._starting if task.done()]:
            index = self._starting.pop(task)
            error = task.exception()
            if error is None:
                self._up[index] = task.result()
                self._last_report_s[index] = time.monotonic()
            elif is_permanent(error):
                self._reasons.append(
                    "No encoder can start: their processes keep dying while they load the model, "
                    "probably because memory is short."
                )
            else:
                self._reasons.append(root_cause(error))


async def _placed(handle: Any) -> None:
    with suppress(RayError):  # raised again to whoever waits until it is up
        await handle.placed.remote()


async def _ready(handle: Any) -> str:
    node_id: str = await handle.ready.remote()
    return node_id


async def _report(handle: Any) -> EncoderReport:
    answer: EncoderReport = await handle.report.remote()
    return answer
