"""The control actor: it starts the encoders of a run and counts attempts at videos.

No frame passes through it, and it knows nothing that the output folder does not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayclip.actors.attempts import AttemptLog
from rayclip.actors.encoder import EncoderSettings
from rayclip.actors.encoder_pool import EncoderPool
from rayclip.actors.messages import EncoderList, TaskUpdate, WorkerProcess
from rayclip.actors.metrics import PERIOD_S, RunMetrics
from rayclip.console import say_to_user
from rayclip.io.crash_log import Death, Key, busy_in, killed, take_death
from rayclip.model.zeroshot import ZeroShot
from rayclip.report.progress import SILENCE_S
from rayclip.report.run_stats import RunState
from rayclip.report.stall_reason import stall_reason
from rayclip.session.resources import EncoderResources

CONTROL_CALLS_AT_ONCE = 1000
CRASH_LOG_WITHIN_S = 20.0  # else its node is taken for lost
IDLE_S = 10.0  # without a task, after which encoders are released
QUIET_S = 60.0  # without a word or a frame of a task, which may have been cancelled

T = TypeVar("T")


class ControlActor:
    """Starts the encoders of a run and remembers which videos were begun. Runs as an actor."""

    def __init__(
        self,
        settings: EncoderSettings,
        resources: EncoderResources,
        checkpoint: bytes | None,
        idle_s: float | None,
        speaks: bool,
    ) -> None:
        self._pool = EncoderPool(settings, checkpoint)
        self._resources = resources
        self._idle_s = idle_s
        self._speaks = speaks
        self._frames = self._waiting = 0
        self._last_heard = self._last_placed = time.monotonic()
        self._stop_reason: str | None = None
        self._attempts = AttemptLog()
        self._tending = asyncio.ensure_future(self._tend(RunMetrics(settings.spec.model_name)))

    async def encoders(self, without: frozenset[int] = frozenset()) -> EncoderList:
        """Wait until an encoder is up, and name all that are; none if there can be no more.

        The first call, and the first after they were released, starts them. Those that are silent,
        as when their nodes are gone, are left out while others answer.

        Raises:
            RunStopped: none can start.
        """
        self._waiting += 1
        try:
            if not self._pool:
                self._fit()
            addresses = await self._pool.addresses(without)
            return EncoderList(addresses, self._resources.gpus > 0 and self._pool.answers)
        finally:
            self._waiting -= 1
            self._last_heard = time.monotonic()

    async def zero_shot(self, texts: tuple[str, ...]) -> ZeroShot:
        """Let an encoder encode texts."""
        first = (await self.encoders()).encoders[0]
        answer: ZeroShot = await first.handle.zero_shot.remote(texts)
        return answer

    async def begin_task(self, task: str, process: WorkerProcess) -> dict[int, list[Death]] | None:
        """Note that a task begins; what ended the attempts at its videos, if it ran before, so that
        its process must have died or its output was lost."""
        self._last_heard = time.monotonic()
        before = self._attempts.process_of(task)
        if before is None:
            return self._attempts.begin_task(task, process)
        death = await _on_node_of(before, take_death, killed(None))
        return self._attempts.begin_task(task, process, death)

    async def note(self, task: str, news: TaskUpdate) -> None:
        """Note what happened to the videos of a task."""
        self._last_heard = time.monotonic()
        self._attempts.note(task, news)

    async def end_task(self, task: str, news: TaskUpdate) -> None:
        """Note what happened last in a task, which is finished, and forget its videos."""
        self._last_heard = time.monotonic()
        self._attempts.end_task(task, news)

    async def stop(self, reason: str) -> None:
        """Note why a task ends the run."""
        self._stop_reason = self._stop_reason or reason

    async def stop_reason(self) -> str | None:
        return self._stop_reason

    async def state(self) -> RunState:
        """How far the run is; encoders that do not answer in time count as last seen."""
        up = await self._pool.hear()
        return RunState(
            self._attempts.done,
            self._attempts.failed,
            self._attempts.frames,
            self._pool.work,
            self._pool.waiting,
            placed=self._pool.placed,
            up=up,
        )

    async def longest(self) -> tuple[str, float] | None:
        """The video that is at work the longest, and for how many seconds.

        TaskUpdate may be older than the video that a task is at now: its crash log is asked for.
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
                if self._pool:
                    self._fit()
            await asyncio.sleep(PERIOD_S)
            state = await self.state()
            metrics.record(state)
            frames = sum(stats.frames for stats in state.encoders)
            if frames > self._frames:
                self._last_heard = time.monotonic()
            self._frames = frames
            if self._speaks:
                self._say_what_is_awaited(state)
            self.release_if_idle()

    def _say_what_is_awaited(self, state: RunState) -> None:
        """For a step of somebody's pipeline: Ray shows its driver what actors print."""
        now = time.monotonic()
        if state.placed or not self._waiting:
            self._last_placed = now
        elif now - self._last_placed >= SILENCE_S:
            self._last_placed = now
            free, cluster = ray.available_resources(), ray.cluster_resources()
            say_to_user(f"rayclip: {stall_reason(state, None, self._resources, free, cluster)}")

    def _fit(self) -> None:
        """Have the encoders that the nodes of this moment are to have."""
        nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        self._pool.fit(self._resources.fitted_to([*nodes.values()]), nodes)

    def release_if_idle(self) -> None:
        """Release the encoders if no task was at work, or wanted one, for a while."""
        if self._idle_s is None or not self._pool or self._waiting:
            return
        quiet_s = time.monotonic() - self._last_heard
        if quiet_s > (QUIET_S if self._attempts.tasks else self._idle_s):
            self._pool.release()


def start_control_actor(
    settings: EncoderSettings,
    resources: EncoderResources,
    checkpoint: bytes | None = None,
    idle_s: float | None = None,
    speaks: bool = False,
) -> Any:
    """Start the control actor on this node, so that it lives and dies with the driver.

    Args:
        settings: of the encoders.
        resources: what they ask of their nodes.
        checkpoint: the content of a checkpoint that other nodes may not have.
        idle_s: how long no task may be at work until the encoders are released; they start again
            when a task wants one. None keeps them.
        speaks: whether it says every 30 s what its encoders wait for, because its driver does not.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(ControlActor).options(
        num_cpus=0, max_concurrency=CONTROL_CALLS_AT_ONCE, scheduling_strategy=here
    )
    return actor.remote(settings, resources, checkpoint, idle_s, speaks)


async def _on_node_of(process: WorkerProcess, read: Callable[[str], T], default: T) -> T:
    """Read the crash log of a process where that is; the default if its node is gone."""
    there = NodeAffinitySchedulingStrategy(process.node_id, soft=False)
    reader: Any = ray.remote(read).options(num_cpus=0, scheduling_strategy=there)
    try:
        answer: T = await asyncio.wait_for(reader.remote(process.crash_log), CRASH_LOG_WITHIN_S)
    except (RayError, TimeoutError):
        return default
    return answer
