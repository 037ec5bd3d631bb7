"""Encoders as the control actor starts, polls and releases them. No Ray runs here."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_ray import FakeRay
from ray.exceptions import ActorDiedError, RayActorError

from rayclip.actors import control_actor, encoder_pool
from rayclip.actors.control_actor import IDLE_S, QUIET_S, ControlActor
from rayclip.actors.encoder import EncoderSettings
from rayclip.actors.encoder_pool import EncoderPool
from rayclip.model.load_stage import LoadStage
from rayclip.model.models import describe
from rayclip.session.resources import EncoderResources

ONE, TWO = (EncoderResources(encoders, 1.0, 0.0, None, elastic=False) for encoders in (1, 2))
SETTINGS = EncoderSettings(describe("demo"), "cuda", None, None)
NODES = ("a node",)
ALL: frozenset[int] = frozenset()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    async def nothing(*_: Any) -> None:
        pass

    monkeypatch.setattr(encoder_pool, "REPORT_TIMEOUT_S", 0.01)
    monkeypatch.setattr(ControlActor, "_run_upkeep", nothing)
    monkeypatch.setattr(control_actor, "RunMetrics", lambda _: None)
    return FakeRay()


def control_actor_of(cluster: FakeRay, idle_s: float | None) -> ControlActor:
    return ControlActor(
        [SETTINGS], ONE, None, idle_s=idle_s, announces_stalls=False, runtime=cluster.runtime
    )


async def started(cluster: FakeRay, resources: EncoderResources) -> EncoderPool:
    """Return a pool whose encoders are all up."""
    encoders = EncoderPool([SETTINGS], None, cluster.runtime)
    encoders.grow_to(resources, NODES)
    while len(await encoders.addresses(ALL)) < resources.encoders:
        await asyncio.sleep(0)
    return encoders


async def usable(encoders: EncoderPool) -> list[int]:
    return [address.number for address in await encoders.addresses(ALL)]


def test_an_encoder_that_reloads_its_model_gets_nothing_while_others_can_encode(
    cluster: FakeRay,
) -> None:
    async def run() -> None:
        encoders = await started(cluster, TWO)
        cluster.encoders[0].is_loaded = False
        assert await encoders.poll() == 1
        assert await usable(encoders) == [1]
        cluster.encoders[0].is_loaded = True
        assert await encoders.poll() == 2
        assert await usable(encoders) == [0, 1]

    asyncio.run(run())


def test_the_only_encoder_is_waited_for_while_it_reloads_its_model(cluster: FakeRay) -> None:
    async def run() -> None:
        encoders = await started(cluster, ONE)
        cluster.encoders[0].is_loaded = False
        assert await encoders.poll() == 0
        assert await usable(encoders) == [0]

    asyncio.run(run())


def test_a_starting_encoder_says_what_it_is_loading(cluster: FakeRay) -> None:
    async def run() -> None:
        encoders = EncoderPool([SETTINGS], None, cluster.runtime)
        cluster.has_room = False
        encoders.grow_to(ONE, NODES)
        while not cluster.encoders:
            await asyncio.sleep(0)
        (encoder,) = cluster.encoders
        encoder.may_load.clear()
        encoder.is_loaded, encoder.loading = False, LoadStage("Downloading", 1, 2)
        assert await encoders.poll() == encoder.asked == 0
        encoder.may_start.set()
        while encoders.work[0].loading is None:
            assert await encoders.poll() == 0
            await asyncio.sleep(0)
        assert encoders.work[0].loading == LoadStage("Downloading", 1, 2)
        encoder.is_loaded, encoder.loading = True, None
        encoder.may_load.set()
        assert await usable(encoders) == [0]
        assert await encoders.poll() == 1
        assert encoders.work[0].loading is None

    asyncio.run(run())


def test_a_starting_encoder_that_dies_is_reported_by_its_start(cluster: FakeRay) -> None:
    async def run() -> None:
        encoders = EncoderPool([SETTINGS], None, cluster.runtime)
        encoders.grow_to(ONE, NODES)
        (encoder,) = cluster.encoders
        encoder.may_load.clear()
        encoder.error = ActorDiedError()
        for _ in range(5):
            assert await encoders.poll() == 0
            await asyncio.sleep(0)
        assert encoder.asked
        assert encoders

    asyncio.run(run())


def test_a_silent_encoder_is_polled_once_and_left_out(cluster: FakeRay) -> None:
    async def run() -> None:
        encoders = await started(cluster, TWO)
        cluster.encoders[0].may_answer.clear()
        for _ in range(5):
            cluster.now_s += encoder_pool.SILENT_S / 4
            assert await encoders.poll() == 1
        assert [actor.asked for actor in cluster.encoders] == [1, 5]
        assert await usable(encoders) == [1]
        cluster.encoders[0].may_answer.set()
        assert await encoders.poll() == 2
        assert await usable(encoders) == [0, 1]

    asyncio.run(run())


def test_encoders_released_during_a_poll_do_not_come_back(
    cluster: FakeRay,
) -> None:
    async def run() -> None:
        encoders = await started(cluster, ONE)
        cluster.encoders[0].may_answer.clear()
        asked = asyncio.create_task(encoders.poll())
        await asyncio.sleep(0)
        encoders.release()
        cluster.encoders[0].may_answer.set()
        assert await asked == 0
        assert not encoders
        encoders.grow_to(ONE, NODES)
        assert await usable(encoders) == [1]

    asyncio.run(run())


def test_an_encoder_that_ray_cannot_restart_is_replaced(
    cluster: FakeRay,
) -> None:
    async def run() -> None:
        encoders = await started(cluster, TWO)
        cluster.encoders[0].error = ActorDiedError()
        assert await encoders.poll() == 1
        encoders.grow_to(TWO, NODES)
        assert await encoders.poll() == 1
        await asyncio.sleep(0)
        assert await usable(encoders) == [1, 2]

    asyncio.run(run())


def test_given_up_devices_are_retried_after_a_release(cluster: FakeRay) -> None:
    async def run() -> None:
        encoders = await started(cluster, ONE)
        cluster.encoders[0].error = RayActorError(actor_init_failed=True)
        await encoders.poll()
        encoders.grow_to(ONE, NODES)
        assert await encoders.addresses(ALL) == []
        assert len(cluster.encoders) == 1
        encoders.release()
        encoders.grow_to(ONE, NODES)
        assert await usable(encoders) == [1]

    asyncio.run(run())


def test_a_given_up_device_is_not_replaced_while_its_node_is_alive(cluster: FakeRay) -> None:
    async def run() -> None:
        encoders = await started(cluster, ONE)
        cluster.encoders[0].error = RayActorError(actor_init_failed=True)
        await encoders.poll()
        encoders.grow_to(ONE, NODES)
        assert len(cluster.encoders) == 1
        encoders.grow_to(ONE, ["another node"])
        assert await usable(encoders) == [1]

    asyncio.run(run())


def test_encoders_are_kept_while_a_task_waits_and_released_when_idle(
    cluster: FakeRay,
) -> None:
    async def run() -> None:
        control = ControlActor(
            [SETTINGS], ONE, None, idle_s=IDLE_S, announces_stalls=False, runtime=cluster.runtime
        )
        cluster.has_room = False
        waiting = asyncio.create_task(control.encoders())
        while not cluster.encoders:
            await asyncio.sleep(0)
        cluster.now_s += 10 * QUIET_S
        control.release_if_idle()
        assert cluster.living == [1.0]
        cluster.encoders[0].may_start.set()
        assert [address.number for address in await waiting] == [0]
        control.release_if_idle()
        assert cluster.living == [1.0]
        cluster.now_s += 2 * IDLE_S
        control.release_if_idle()
        assert cluster.living == []

    asyncio.run(run())
