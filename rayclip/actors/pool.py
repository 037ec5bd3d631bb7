"""The control actor: it starts the encoders of a run and counts attempts at videos.

No frame passes through it, and it knows nothing that the output folder does not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayclip.actors.attempts import AttemptLog, News, Process
from rayclip.actors.encoder import EncoderSettings
from rayclip.actors.fleet import Directory, Fleet
from rayclip.actors.metrics import PERIOD_S, RunMetrics
from rayclip.actors.neighbours import NAMESPACE, at_work_beside, new_name, others
from rayclip.io.crash_log import Death, Key, busy_in, killed, take_death
from rayclip.messages import say_to_user
from rayclip.model.zeroshot import ZeroShot
from rayclip.report.awaiting import awaited
from rayclip.report.batch_stats import BatchStats
from rayclip.report.progress import BUSY, SILENCE_S
from rayclip.report.run_state import RunState
from rayclip.session.autoscaling import has_autoscaler
from rayclip.session.resources import EncoderResources

CONTROL_CALLS_AT_ONCE = 1000
CRASH_LOG_WITHIN_S = 20.0  # else its node is taken for lost
YIELD_S = 1.0  # without a task, after which encoders are released to others that wait for room
QUIET_S = 60.0  # without a word or a frame of a task, which may have been cancelled
SETTLED_S = 300.0  # with fewer other runs, until their share is taken: all models are loaded anew

T = TypeVar("T")


class Pool:
    """Starts the encoders of a run and remembers which videos were begun. Runs as an actor."""

    def __init__(
        self,
        name: str,
        settings: EncoderSettings,
        resources: EncoderResources,
        checkpoint: bytes | None,
        idle_s: float | None,
    ) -> None:
        self._name = name
        self._fleet = Fleet(settings, checkpoint)
        self._resources = resources
        self._idle_s = idle_s
        self._steps = self._users = self._sharing = 1
        self._lately = self._work = BatchStats()
        self._last_heard = self._last_crowded = time.monotonic()
        self._waiting = 0
        self._last_placed = time.monotonic()
        self._stop_reason: str | None = None
        self._attempts = AttemptLog()
        self._tending = asyncio.ensure_future(self._tend(RunMetrics(settings.spec.model_name)))

    async def share_among(self, steps: int) -> None:
        """Leave room for other steps of the same pipeline from the beginning."""
        self._steps = max(self._steps, steps)

    async def encoders(self, without: frozenset[int] = frozenset()) -> Directory:
        """Wait until an encoder is up, and name all that are; none where there can be no more.

        Those that are silent, as when their nodes are gone, are left out while others answer.

        Raises:
            RunStopped: none can start.
        """
        self._waiting += 1
        try:
            if not self._fleet:
                await self._fit()
                self._making_room = asyncio.create_task(self._make_room())
            keeps_cpus = self._users == 1 and self._resources.gpus > 0
            return Directory(await self._fleet.addresses(without), keeps_cpus)
        finally:
            self._waiting -= 1
            self._last_heard = time.monotonic()

    async def at_work(self) -> bool:
        """Whether it wants devices now: a step of a pipeline does not when no task is at work."""
        return self._idle_s is None or (bool(self._fleet) and not self._is_idle(YIELD_S))

    async def give_way(self) -> None:
        """Release the encoders to others who wait for room, unless they are in use."""
        if not await self.at_work():
            self._fleet.release()

    async def zero_shot(self, texts: tuple[str, ...]) -> ZeroShot:
        """Let an encoder encode texts."""
        first = (await self.encoders()).encoders[0]
        answer: ZeroShot = await first.handle.zero_shot.remote(texts)
        return answer

    async def begin_group(self, group: str, process: Process) -> dict[int, list[Death]] | None:
        """Note that a task begins; what ended the attempts at its videos, if it ran before, so that
        its process must have died or its output was lost."""
        self._last_heard = time.monotonic()
        before = self._attempts.process_of(group)
        if before is None:
            return self._attempts.begin_group(group, process)
        death = await _on_node_of(before, take_death, killed(None))
        return self._attempts.begin_group(group, process, death)

    async def note(self, group: str, news: News) -> None:
        """Note what happened to the videos of a task."""
        self._last_heard = time.monotonic()
        self._attempts.note(group, news)

    async def end_group(self, group: str, news: News) -> None:
        """Note what happened last in a task, which is finished, and forget its videos."""
        self._last_heard = time.monotonic()
        self._attempts.end_group(group, news)

    async def stop(self, reason: str) -> None:
        """Note why a task ends the run."""
        self._stop_reason = self._stop_reason or reason

    async def stop_reason(self) -> str | None:
        return self._stop_reason

    async def state(self) -> RunState:
        """How far the run is; encoders that do not answer in time count as last seen."""
        up = await self._fleet.hear()
        return RunState(
            self._attempts.done,
            self._attempts.failed,
            self._attempts.frames,
            self._fleet.work,
            self._fleet.waiting,
            placed=self._fleet.placed,
            up=up,
        )

    async def longest(self) -> tuple[str, float] | None:
        """The video that is at work the longest, and for how many seconds.

        News may be older than the video that a task is at now: its crash log is asked for.
        """
        found = self._attempts.longest()
        if found is None:
            return None
        process, busy = found
        names: dict[Key, str] = await _on_node_of(process, busy_in, {})
        return next(iter(names.values()), busy.video), busy.since_s

    async def _tend(self, metrics: RunMetrics) -> None:
        while True:
            with suppress(RayError):  # the cluster does not answer; it is asked again
                if self._idle_s is None or self._fleet:
                    await self._fit()
            await asyncio.sleep(PERIOD_S)
            state = await self.state()
            metrics.record(state)
            work = sum(state.encoders, BatchStats())
            self._lately, self._work = work - self._work, work
            if self._lately.frames:
                self._last_heard = time.monotonic()
            if self._idle_s is not None:
                self._say_what_is_awaited(state)
                if self._is_idle(self._idle_s):
                    self._fleet.release()

    def _say_what_is_awaited(self, state: RunState) -> None:
        """For a step of somebody's pipeline: Ray shows its driver what actors print."""
        now = time.monotonic()
        if state.placed or not self._waiting:
            self._last_placed = now
        elif now - self._last_placed >= SILENCE_S:
            self._last_placed = now
            say_to_user(
                f"rayclip: {awaited(state, None, self._resources, ray.available_resources())}"
            )

    async def _fit(self) -> None:
        """Have the encoders that the nodes have room for and other runs leave us.

        On GPUs they are started anew, with a smaller share of each, when another run begins, and
        with a larger one when it is gone for good: Ray may have put several on one GPU. Encoders on
        CPUs keep what they have: decoding tasks would take their place before they are back.

        Where an autoscaler may bring nodes, and all encoders are busy, as many again are started:
        it sees what waits for room.
        """
        beside = await at_work_beside(self._name)
        self._users = max(self._steps, 1 + beside)
        now = time.monotonic()
        if self._users == self._sharing:
            self._last_crowded = now
        crowded, relaxed = self._users > self._sharing, now - self._last_crowded > SETTLED_S
        if not self._fleet or (self._resources.gpus and (crowded or relaxed)):
            self._sharing = self._users
        nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        fitted = self._resources.fitted_to([*nodes.values()])
        if fitted.elastic and self._lately.busy >= BUSY and has_autoscaler():
            fitted = replace(fitted, encoders=2 * fitted.encoders)
        self._fleet.fit(fitted.shared_by(self._sharing), nodes)

    async def _make_room(self) -> None:
        """While encoders wait for room, ask those who may have it and do not use it to give way:
        the steps of other datasets, which may be done."""
        while self._fleet.waits_for_room:
            await asyncio.sleep(YIELD_S)
            for other in others(self._name):
                other.give_way.remote()

    def _is_idle(self, after_s: float) -> bool:
        quiet_s = time.monotonic() - self._last_heard
        after_s = QUIET_S if self._attempts.groups else after_s
        return bool(self._fleet) and not self._waiting and quiet_s > after_s


def start_pool(
    settings: EncoderSettings,
    resources: EncoderResources,
    checkpoint: bytes | None = None,
    idle_s: float | None = None,
) -> Any:
    """Start the control actor on this node, so that it lives and dies with the driver.

    Args:
        settings: of the encoders.
        resources: what they ask of their nodes.
        checkpoint: the content of a checkpoint that other nodes may not have.
        idle_s: how long no task may be at work until the encoders are released; they start when
            a task first wants one. None starts them now, and keeps them.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    name = new_name(settings.device or "cpu")
    actor = ray.remote(Pool).options(
        name=name,
        namespace=NAMESPACE,
        num_cpus=0,
        max_concurrency=CONTROL_CALLS_AT_ONCE,
        scheduling_strategy=here,
    )
    return actor.remote(name, settings, resources, checkpoint, idle_s)


async def _on_node_of(process: Process, read: Callable[[str], T], default: T) -> T:
    """Read the crash log of a process where that is; the default if its node is gone."""
    there = NodeAffinitySchedulingStrategy(process.node_id, soft=False)
    reader: Any = ray.remote(read).options(num_cpus=0, scheduling_strategy=there)
    try:
        answer: T = await asyncio.wait_for(reader.remote(process.crash_log), CRASH_LOG_WITHIN_S)
    except (RayError, TimeoutError):
        return default
    return answer
