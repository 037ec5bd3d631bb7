"""The encoders that a control actor starts, polls and releases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from math import inf
from typing import Any

from ray.exceptions import ActorDiedError, RayError

from rayclip.actors.encoder import Encoder, EncoderSettings
from rayclip.actors.messages import EncoderAddress, EncoderReport
from rayclip.actors.ray_calls import RAY, Runtime, is_permanent, root_cause
from rayclip.errors import RunStopped
from rayclip.report.run_stats import BatchStats
from rayclip.session.resources import EncoderResources

MAX_REQUESTS = 10_000  # in an encoder; further calls would wait in Ray
REPORT_TIMEOUT_S = 1.0
SILENT_S = 15.0  # without a report, then an encoder gets no more frames


class State(Enum):
    """Where an encoder is in its life. Only :attr:`GONE` ones are replaced."""

    STARTING = auto()
    UP = auto()
    GIVEN_UP = auto()  # its processes died too often, and its node is alive
    FAILED = auto()  # it could not start
    GONE = auto()


HAS_ACTOR = (State.STARTING, State.UP, State.GIVEN_UP)


@dataclass(eq=False)
class Member:
    """An encoder of the pool.

    Attributes:
        handle: of the actor.
        placing: done when Ray has placed it on a node.
        starting: gives its node's id when it is up.
        clock: in seconds.
        state: by what was heard of it last.
        node_id: once it is up.
        reason: why it failed.
        poll: the report that was requested, if any.
        last_report_s: when it last reported that it can encode.
        waiting: frames that it holds.
        work: what each of its processes has done.
    """

    handle: Any
    placing: asyncio.Task[None]
    starting: asyncio.Task[str]
    clock: Callable[[], float]
    state: State = State.STARTING
    node_id: str = ""
    reason: str = ""
    poll: asyncio.Task[EncoderReport] | None = None
    last_report_s: float = -inf
    waiting: int = 0
    work: dict[int, BatchStats] = field(default_factory=dict)

    @property
    def is_responsive(self) -> bool:
        """Whether it reported recently and could encode."""
        return self.state is State.UP and self.clock() - self.last_report_s < SILENT_S

    def collect(self) -> None:
        """Take what has been heard since the last call."""
        if self.poll is not None and self.poll.done():
            poll, self.poll = self.poll, None
            if self.state is State.STARTING:
                self._collect_loading(poll)
            else:
                self._collect_report(poll)
        if self.state is State.STARTING and self.starting.done():
            self._collect_start()

    def _collect_start(self) -> None:
        error = self.starting.exception()
        if error is None:
            self.state, self.node_id = State.UP, self.starting.result()
            self.last_report_s = self.clock()
            if self.poll is not None:  # its reply may be from before
                self.poll.cancel()
                self.poll = None
            return
        self.state, self.reason = State.FAILED, root_cause(error)
        if is_permanent(error):
            self.reason = (
                "No encoder can start: their processes keep dying while they load the model, "
                "probably because memory is short."
            )

    def _collect_loading(self, poll: asyncio.Task[EncoderReport]) -> None:
        if poll.exception() is None:  # whoever waits until it is up gets the error
            report = poll.result()
            self.work[report.process] = report.work

    def _collect_report(self, poll: asyncio.Task[EncoderReport]) -> None:
        error = poll.exception()
        if error is None:
            report = poll.result()
            self.node_id, self.waiting = report.node_id, report.waiting
            self.work[report.process] = report.work
            # one that reloads its model counts as silent: requests would wait for the model
            self.last_report_s = self.clock() if report.is_loaded else -inf
        elif is_permanent(error):
            self.state = State.GIVEN_UP
        elif isinstance(error, ActorDiedError):  # Ray could not restart it
            self.leave()

    def leave(self) -> None:
        """Leave the pool, so that another can take its place."""
        for task in (self.starting, self.placing, self.poll):
            if task is not None:
                task.cancel()
        self.state, self.poll, self.waiting, self.last_report_s = State.GONE, None, 0, -inf


class EncoderPool:
    """Encoders, numbered in the order in which they were started; no number is used twice."""

    def __init__(
        self,
        models: Sequence[EncoderSettings],
        checkpoints: Sequence[bytes | None] | None,
        runtime: Runtime = RAY,
    ) -> None:
        """Prepare to start encoders.

        Args:
            models: of each encoder; the number of threads comes from its resources.
            checkpoints: content of the checkpoints of models that other nodes may not have.
            runtime: Ray, or a fake of it.
        """
        self._ray, self._clock = runtime.ray, runtime.clock
        self._models = models
        # Kept: an encoder that Ray restarts needs its arguments again.
        self._contents = None if checkpoints is None else self._ray.put(checkpoints)
        self._members: list[Member] = []

    def __bool__(self) -> bool:
        """Whether encoders are up or starting, or failed to start."""
        return self._present > 0

    def grow_to(self, resources: EncoderResources, nodes: Collection[str]) -> None:
        """Start encoders until there are this many.

        They come up when the nodes have room for them. Surplus encoders are never stopped: their
        node is gone, and they wait for another. An encoder that was given up is not replaced while
        its node is alive, because its device is still there.

        Args:
            resources: how many encoders there should be, and what each requests.
            nodes: ids of the nodes that are alive.
        """
        for member in self._in(State.GIVEN_UP):
            if member.node_id not in nodes:
                member.leave()
        for _ in range(resources.encoders - self._present):
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
        models = [replace(model, threads=resources.threads) for model in self._models]
        handle = self._ray.remote(**options)(Encoder).remote(models, self._contents)
        placing = asyncio.create_task(_placed(handle))
        starting = asyncio.create_task(_ready(handle))
        self._members.append(Member(handle, placing, starting, self._clock))

    def release(self) -> None:
        """Stop all encoders and free what they hold. Others may be started later, also in place of
        those that failed."""
        for member in self._in(*HAS_ACTOR):
            self._ray.kill(member.handle)
        for member in self._members:
            member.leave()

    async def addresses(self, exclude: frozenset[int]) -> list[EncoderAddress]:
        """Wait until an encoder is up, and return all that are; none if no encoder can come up any
        more.

        Silent encoders, such as those of lost nodes, are left out while others respond.

        Raises:
            RunStopped: no encoder can start.
        """
        self._collect()
        while not (up := [n for n in self._numbers_up() if n not in exclude]):
            starting = [member.starting for member in self._in(State.STARTING)]
            if not starting and self._in(State.UP, State.GIVEN_UP):
                return []
            if not starting:
                raise RunStopped(self._in(State.FAILED)[-1].reason)
            await asyncio.wait(starting, return_when=asyncio.FIRST_COMPLETED)
            self._collect()
        responsive = [number for number in up if self._members[number].is_responsive]
        return [
            EncoderAddress(number, self._members[number].handle, self._members[number].node_id)
            for number in responsive or up
        ]

    async def poll(self) -> int:
        """Request a report of each encoder, and return how many reported in time that they can
        encode.

        Those that load their model are not waited for: their reports are read the next time. An
        encoder with an unanswered request is not asked again: if its node is gone, Ray holds the
        request until there is another node.
        """
        started = self._clock()
        self._collect()
        asked = self._in(State.UP)
        loading = [member for member in self._in(State.STARTING) if member.placing.done()]
        for member in (*asked, *loading):
            member.poll = member.poll or asyncio.create_task(_report(member.handle))
        polls = [member.poll for member in asked if member.poll is not None]
        if polls:
            await asyncio.wait(polls, timeout=REPORT_TIMEOUT_S)
        for member in asked:
            member.collect()
        return sum(member.last_report_s >= started for member in asked)

    @property
    def work(self) -> tuple[BatchStats, ...]:
        """What each encoder has done over all its processes, by the last reports."""
        return tuple(sum(member.work.values(), BatchStats()) for member in self._members)

    @property
    def waiting(self) -> tuple[int, ...]:
        """Frames that each encoder holds, by the last reports."""
        return tuple(member.waiting for member in self._members)

    @property
    def placed(self) -> int:
        """Number of encoders that Ray has placed on a node."""
        return sum(member.placing.done() for member in self._in(*HAS_ACTOR))

    @property
    def _present(self) -> int:
        return sum(member.state is not State.GONE for member in self._members)

    def _collect(self) -> None:
        for member in self._members:
            member.collect()

    def _in(self, *states: State) -> list[Member]:
        return [member for member in self._members if member.state in states]

    def _numbers_up(self) -> list[int]:
        return [n for n, member in enumerate(self._members) if member.state is State.UP]


async def _placed(handle: Any) -> None:
    with suppress(RayError):  # raised again to whoever waits until it is up
        await handle.placed.remote()


async def _ready(handle: Any) -> str:
    node_id: str = await handle.ready.remote()
    return node_id


async def _report(handle: Any) -> EncoderReport:
    answer: EncoderReport = await handle.report.remote()
    return answer
