"""Encoders as the control actor starts, polls and releases them. No Ray runs here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayActorError

from rayclip.actors import control_actor, encoder_pool
from rayclip.actors.control_actor import IDLE_S, QUIET_S, ControlActor
from rayclip.actors.encoder import EncoderSettings
from rayclip.actors.encoder_pool import EncoderPool
from rayclip.actors.messages import EncoderReport
from rayclip.model.models import describe
from rayclip.report.run_stats import BatchStats
from rayclip.session.resources import EncoderResources

ONE, TWO = (EncoderResources(encoders, 1.0, 0.0, None, elastic=False) for encoders in (1, 2))
SETTINGS = EncoderSettings(describe("demo"), "cuda", None, None)
NODES = ("a node",)
ALL: frozenset[int] = frozenset()


class Call:
    """A fake method of an actor handle."""

    def __init__(self, answer: Callable[[], Awaitable[Any]]) -> None:
        self._answer = answer

    def remote(self) -> Awaitable[Any]:
        return self._answer()


class Actor:
    """A fake encoder.

    Attributes:
        gpus: that it requested.
        may_start: set when it is up.
        may_answer: set when it may report.
        is_loaded: as it reports.
        error: raised by its report.
        asked: how often it was polled.
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
        return EncoderReport(1, "a node", BatchStats(), 0, self.is_loaded)


class Cluster:
    """A fake Ray.

    Attributes:
        actors: that were started.
        has_room: whether actors started now are placed on a node.
        now_s: the time on the control actor's clock.
    """

    def __init__(self) -> None:
        self.actors: list[Actor] = []
        self.has_room = True
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
        """GPUs of the actors that were not released."""
        return [actor.gpus for actor in self.actors if not actor.is_killed]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()

    async def nothing(*_: Any) -> None:
        pass

    for module in (encoder_pool, control_actor):
        monkeypatch.setattr(module, "ray", cluster)
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: cluster.now_s))
    monkeypatch.setattr(encoder_pool, "REPORT_TIMEOUT_S", 0.01)
    monkeypatch.setattr(control_actor, "RunMetrics", lambda _: None)
    monkeypatch.setattr(ControlActor, "_run_upkeep", nothing)
    return cluster


async def started(resources: EncoderResources) -> EncoderPool:
    """Return a pool whose encoders are all up."""
    encoders = EncoderPool(SETTINGS, None)
    encoders.grow_to(resources, NODES)
    while len(await encoders.addresses(ALL)) < resources.encoders:
        await asyncio.sleep(0)
    return encoders


async def usable(encoders: EncoderPool) -> list[int]:
    return [address.number for address in await encoders.addresses(ALL)]


def test_an_encoder_that_reloads_its_model_gets_nothing_while_others_can_encode(
    cluster: Cluster,
) -> None:
    async def run() -> None:
        encoders = await started(TWO)
        cluster.actors[0].is_loaded = False
        assert await encoders.poll() == 1
        assert await usable(encoders) == [1]
        cluster.actors[0].is_loaded = True
        assert await encoders.poll() == 2
        assert await usable(encoders) == [0, 1]

    asyncio.run(run())


def test_the_only_encoder_is_waited_for_while_it_reloads_its_model(cluster: Cluster) -> None:
    async def run() -> None:
        encoders = await started(ONE)
        cluster.actors[0].is_loaded = False
        assert await encoders.poll() == 0
        assert await usable(encoders) == [0]

    asyncio.run(run())


def test_a_silent_encoder_is_polled_once_and_left_out(cluster: Cluster) -> None:
    async def run() -> None:
        encoders = await started(TWO)
        cluster.actors[0].may_answer.clear()
        for _ in range(5):
            cluster.now_s += encoder_pool.SILENT_S / 4
            assert await encoders.poll() == 1
        assert [actor.asked for actor in cluster.actors] == [1, 5]
        assert await usable(encoders) == [1]
        cluster.actors[0].may_answer.set()
        assert await encoders.poll() == 2
        assert await usable(encoders) == [0, 1]

    asyncio.run(run())


def test_encoders_released_during_a_poll_do_not_come_back(
    cluster: Cluster,
) -> None:
    async def run() -> None:
        encoders = await started(ONE)
        cluster.actors[0].may_answer.clear()
        asked = asyncio.create_task(encoders.poll())
        await asyncio.sleep(0)
        encoders.release()
        cluster.actors[0].may_answer.set()
        assert await asked == 0
        assert not encoders
        encoders.grow_to(ONE, NODES)
        assert await usable(encoders) == [1]

    asyncio.run(run())


def test_an_encoder_that_ray_cannot_restart_is_replaced(
    cluster: Cluster,
) -> None:
    async def run() -> None:
        encoders = await started(TWO)
        cluster.actors[0].error = ActorDiedError()
        assert await encoders.poll() == 1
        encoders.grow_to(TWO, NODES)
        assert await encoders.poll() == 1
        await asyncio.sleep(0)
        assert await usable(encoders) == [1, 2]

    asyncio.run(run())


def test_given_up_devices_are_retried_after_a_release(cluster: Cluster) -> None:
    async def run() -> None:
        encoders = await started(ONE)
        cluster.actors[0].error = RayActorError(actor_init_failed=True)
        await encoders.poll()
        encoders.grow_to(ONE, NODES)
        assert await encoders.addresses(ALL) == []
        assert len(cluster.actors) == 1
        encoders.release()
        encoders.grow_to(ONE, NODES)
        assert await usable(encoders) == [1]

    asyncio.run(run())


def test_a_given_up_device_is_not_replaced_while_its_node_is_alive(cluster: Cluster) -> None:
    async def run() -> None:
        encoders = await started(ONE)
        cluster.actors[0].error = RayActorError(actor_init_failed=True)
        await encoders.poll()
        encoders.grow_to(ONE, NODES)
        assert len(cluster.actors) == 1
        encoders.grow_to(ONE, ["another node"])
        assert await usable(encoders) == [1]

    asyncio.run(run())


def test_encoders_are_kept_while_a_task_waits_and_released_when_idle(
    cluster: Cluster,
) -> None:
    async def run() -> None:
        control = ControlActor(SETTINGS, ONE, None, idle_s=IDLE_S, announces_stalls=False)
        cluster.has_room = False
        waiting = asyncio.create_task(control.encoders())
        while not cluster.actors:
            await asyncio.sleep(0)
        cluster.now_s += 10 * QUIET_S
        control.release_if_idle()
        assert cluster.living == [1.0]
        cluster.actors[0].may_start.set()
        assert [address.number for address in (await waiting).encoders] == [0]
        control.release_if_idle()
        assert cluster.living == [1.0]
        cluster.now_s += 2 * IDLE_S
        control.release_if_idle()
        assert cluster.living == []

    asyncio.run(run())


def test_a_task_holds_its_cpus_only_while_an_encoder_responds(cluster: Cluster) -> None:
    async def run() -> None:
        control = ControlActor(SETTINGS, ONE, None, idle_s=None, announces_stalls=False)
        assert (await control.encoders()).hold_cpus
        cluster.now_s += 2 * encoder_pool.SILENT_S  # another run may have its GPU and need CPUs
        assert not (await control.encoders()).hold_cpus

    asyncio.run(run())
