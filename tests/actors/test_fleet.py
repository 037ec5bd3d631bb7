"""Encoders as the control actor sees them start, answer, share GPUs and go. No Ray runs here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayActorError

from rayclip.actors import fleet, pool
from rayclip.actors.encoder import EncoderReport, EncoderSettings
from rayclip.actors.fleet import Fleet
from rayclip.actors.pool import QUIET_S, SETTLED_S, YIELD_S, Pool
from rayclip.model.models import describe
from rayclip.report.batch_stats import BatchStats
from rayclip.session.resources import EncoderResources

ONE, TWO = (EncoderResources(encoders, 1.0, 0.0, 1.0, elastic=False) for encoders in (1, 2))
SETTINGS = EncoderSettings(describe("demo"), "cuda", None, None)
NODES = ("a node",)
ALL: frozenset[int] = frozenset()


class Call:
    """A method of an actor, as its handle has it."""

    def __init__(self, answer: Callable[[], Awaitable[Any]]) -> None:
        self._answer = answer

    def options(self, **_: Any) -> Call:
        return self

    def remote(self) -> Awaitable[Any]:
        return self._answer()


class Actor:
    """In place of an encoder.

    Attributes:
        gpus: that it asked for.
        may_start: set when it is up.
        may_answer: set when it reports.
        is_loaded: as it reports.
        error: that comes of asking it.
        asked: how often it was.
        is_killed: whether it was released.
    """

    def __init__(self, gpus: float) -> None:
        self.gpus = gpus
        self.may_start, self.may_answer = asyncio.Event(), asyncio.Event()
        self.may_answer.set()
        self.is_loaded = True
        self.error: Exception | None = None
        self.asked = 0
        self.is_killed = False
        self.placed = self.ready = Call(self._start)
        self.report = Call(self._report)

    async def _start(self) -> str:
        await self.may_start.wait()
        return "a node"

    async def _report(self) -> EncoderReport:
        self.asked += 1
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return EncoderReport(1, "a node", BatchStats(), 0, 0.0, self.is_loaded)


class Cluster:
    """In place of Ray.

    Attributes:
        actors: that were started.
        has_room: whether those that are started now have a node.
        others: runs that are at work beside ours.
        now_s: what the clock of the control actor says.
    """

    def __init__(self) -> None:
        self.actors: list[Actor] = []
        self.has_room = True
        self.others = 0
        self.now_s = 0.0

    def remote(self, **options: Any) -> Any:
        def start(*_: Any) -> Actor:
            actor = Actor(options["num_gpus"])
            if self.has_room:
                actor.may_start.set()
            self.actors.append(actor)
            return actor

        return lambda _: SimpleNamespace(remote=start)

    def kill(self, actor: Actor) -> None:
        actor.is_killed = True

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": "a node", "Alive": True, "Resources": {"GPU": 2.0}}]

    @property
    def living(self) -> list[float]:
        """The GPUs of those that were not released."""
        return [actor.gpus for actor in self.actors if not actor.is_killed]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()

    async def others(_: str) -> int:
        return cluster.others

    async def nothing(*_: Any) -> None:
        pass

    for module in (fleet, pool):
        monkeypatch.setattr(module, "ray", cluster)
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: cluster.now_s))
    monkeypatch.setattr(fleet, "REPORT_TIMEOUT_S", 0.01)
    monkeypatch.setattr(pool, "at_work_beside", others)
    monkeypatch.setattr(pool, "RunMetrics", lambda _: None)
    monkeypatch.setattr(Pool, "_tend", nothing)
    monkeypatch.setattr(Pool, "_make_room", nothing)
    return cluster


async def started(resources: EncoderResources) -> Fleet:
    """A fleet whose encoders are all up."""
    encoders = Fleet(SETTINGS, None)
    encoders.fit(resources, NODES)
    while len(await encoders.addresses(ALL)) < resources.encoders:
        await asyncio.sleep(0)
    return encoders


async def usable(encoders: Fleet) -> list[int]:
    return [address.index for address in await encoders.addresses(ALL)]


def test_an_encoder_that_loads_its_model_again_gets_nothing_while_others_can_encode(
    cluster: Cluster,
) -> None:
    async def run() -> None:
        encoders = await started(TWO)
        cluster.actors[0].is_loaded = False
        assert await encoders.hear() == 1
        assert await usable(encoders) == [1]
        cluster.actors[0].is_loaded = True
        assert await encoders.hear() == 2
        assert await usable(encoders) == [0, 1]

    asyncio.run(run())


def test_the_only_encoder_is_waited_for_while_it_loads_its_model_again(cluster: Cluster) -> None:
    async def run() -> None:
        encoders = await started(ONE)
        cluster.actors[0].is_loaded = False
        assert await encoders.hear() == 0
        assert await usable(encoders) == [0]

    asyncio.run(run())


def test_an_encoder_that_does_not_answer_is_asked_once_and_left_out(cluster: Cluster) -> None:
    async def run() -> None:
        encoders = await started(TWO)
        cluster.actors[0].may_answer.clear()
        for _ in range(5):
            cluster.now_s += fleet.SILENT_S / 4
            assert await encoders.hear() == 1
        assert [actor.asked for actor in cluster.actors] == [1, 5]
        assert await usable(encoders) == [1]
        cluster.actors[0].may_answer.set()
        assert await encoders.hear() == 2
        assert await usable(encoders) == [0, 1]

    asyncio.run(run())


def test_encoders_that_are_released_while_they_are_asked_do_not_come_back(
    cluster: Cluster,
) -> None:
    async def run() -> None:
        encoders = await started(ONE)
        cluster.actors[0].may_answer.clear()
        asked = asyncio.create_task(encoders.hear())
        await asyncio.sleep(0)
        encoders.release()
        cluster.actors[0].may_answer.set()
        assert await asked == 0
        assert not encoders
        encoders.fit(ONE, NODES)
        assert await usable(encoders) == [1]

    asyncio.run(run())


def test_another_takes_the_place_of_an_encoder_that_ray_cannot_start_again(
    cluster: Cluster,
) -> None:
    async def run() -> None:
        encoders = await started(TWO)
        cluster.actors[0].error = ActorDiedError()
        assert await encoders.hear() == 1
        encoders.fit(TWO, NODES)
        assert await encoders.hear() == 1
        await asyncio.sleep(0)
        assert await usable(encoders) == [1, 2]

    asyncio.run(run())


def test_devices_that_were_given_up_are_tried_again_after_a_release(cluster: Cluster) -> None:
    async def run() -> None:
        encoders = await started(ONE)
        cluster.actors[0].error = RayActorError(actor_init_failed=True)
        await encoders.hear()
        encoders.fit(ONE, NODES)
        assert await encoders.addresses(ALL) == []
        assert len(cluster.actors) == 1
        encoders.release()
        encoders.fit(ONE, NODES)
        assert await usable(encoders) == [1]

    asyncio.run(run())


def test_a_device_that_was_given_up_counts_as_long_as_its_node_is_there(cluster: Cluster) -> None:
    async def run() -> None:
        encoders = await started(ONE)
        cluster.actors[0].error = RayActorError(actor_init_failed=True)
        await encoders.hear()
        encoders.fit(ONE, NODES)
        assert len(cluster.actors) == 1
        encoders.fit(ONE, ["another node"])
        assert await usable(encoders) == [1]

    asyncio.run(run())


def test_a_step_whose_tasks_wait_for_an_encoder_is_at_work_however_long_that_takes(
    cluster: Cluster,
) -> None:
    async def run() -> None:
        control = Pool("a pool", SETTINGS, ONE, None, idle_s=1.0)
        cluster.has_room = False
        waiting = asyncio.create_task(control.encoders())
        while not cluster.actors:
            await asyncio.sleep(0)
        cluster.now_s += 10 * QUIET_S
        assert await control.at_work()
        await control.give_way()
        cluster.actors[0].may_start.set()
        assert [address.index for address in (await waiting).encoders] == [0]
        assert await control.at_work()
        cluster.now_s += 2 * YIELD_S
        assert not await control.at_work()
        await control.give_way()
        assert cluster.living == []

    asyncio.run(run())


def test_runs_share_every_gpu_and_one_that_is_left_alone_for_a_while_has_all_of_them_again(
    cluster: Cluster,
) -> None:
    async def run() -> None:
        control = Pool("a pool", SETTINGS, TWO, None, idle_s=None)
        await control.encoders()
        assert cluster.living == [1.0, 1.0]
        cluster.others = 1
        await control._fit()
        assert cluster.living == [0.5, 0.5]
        cluster.others = 0
        for _ in range(3):
            cluster.now_s += SETTLED_S / 4
            await control._fit()
            assert cluster.living == [0.5, 0.5], "it may come back"
        cluster.now_s += SETTLED_S / 2
        await control._fit()
        assert cluster.living == [1.0, 1.0]

    asyncio.run(run())
