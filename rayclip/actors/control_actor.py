"""The control actor: starts the encoders of a run and counts the attempts at its videos.

No frames pass through it. If it dies, nothing is lost: the output folder records what is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayclip.actors.attempts import AttemptLog
from rayclip.actors.encoder import EncoderSettings
from rayclip.actors.encoder_pool import EncoderPool
from rayclip.actors.messages import EncoderAddress, TaskUpdate, WorkerProcess
from rayclip.actors.metrics import PERIOD_S, RunMetrics
from rayclip.actors.ray_calls import RAY, Runtime
from rayclip.console import say_to_user
from rayclip.io.crash_log import Death, Key, read_busy, take_death, unrecorded_death
from rayclip.model.zeroshot import ZeroShot
from rayclip.report.progress import SILENCE_S
from rayclip.report.run_stats import RunState
from rayclip.report.stall_reason import stall_reason
from rayclip.session.resources import EncoderResources

MAX_CONCURRENT_CALLS = 1000
CRASH_LOG_TIMEOUT_S = 20.0  # then the node counts as lost
IDLE_S = 10.0  # with no task running, then the encoders are released
QUIET_S = 60.0  # with no update and no frame, then the tasks count as cancelled

T = TypeVar("T")


class ControlActor:
    """Starts the encoders of a run and remembers which videos are in progress. Runs as an actor."""

    def __init__(
        self,
        models: Sequence[EncoderSettings],
        resources: EncoderResources,
        checkpoints: Sequence[bytes | None] | None,
        idle_s: float | None,
        announces_stalls: bool,
        runtime: Runtime = RAY,
    ) -> None:
        self._ray, self._clock = runtime.ray, runtime.clock
        self._pool = EncoderPool(models, checkpoints, runtime)
        self._resources = resources
        self._idle_s = idle_s
        self._announces_stalls = announces_stalls
        self._frames = self._waiting = 0
        self._last_activity = self._last_placed = self._clock()
        self._stop_reason: str | None = None
        self._attempts = AttemptLog()
        names = ",".join(model.spec.model_name for model in models)
        self._upkeep = asyncio.ensure_future(self._run_upkeep(RunMetrics(names)))

    async def encoders(self, exclude: frozenset[int] = frozenset()) -> list[EncoderAddress]:
        """Wait until an encoder is up, and return all that are; none if no encoder can come up any
        more.

        The first call starts the encoders; so does the first call after they were released. Silent
        encoders, such as those of lost nodes, are left out while others respond.

        Raises:
            RunStopped: no encoder can start.
        """
        self._waiting += 1
        try:
            if not self._pool:
                self._adjust_pool()
            return await self._pool.addresses(exclude)
        finally:
            self._waiting -= 1
            self._last_activity = self._clock()

    async def has_placed_encoders(self) -> bool:
        """Whether an encoder has a place on a node, though maybe not its models yet."""
        return self._pool.placed > 0

    async def zero_shot(self, texts: tuple[str, ...]) -> ZeroShot:
        """Have an encoder encode texts."""
        first = (await self.encoders())[0]
        answer: ZeroShot = await first.handle.zero_shot.remote(texts)
        return answer

    async def begin_task(self, task: str, process: WorkerProcess) -> dict[int, list[Death]] | None:
        """Record that a task begins.

        Returns:
            None on the first attempt. If the task ran before, its process died or its output was
            lost: then the deaths for each of its videos.
        """
        self._last_activity = self._clock()
        before = self._attempts.last_process(task)
        if before is None:
            return self._attempts.begin_task(task, process)
        death = await _read_on_node(before, take_death, unrecorded_death(None))
        return self._attempts.begin_task(task, process, death)

    async def update_task(self, task: str, update: TaskUpdate) -> None:
        """Record what happened to the videos of a task."""
        self._last_activity = self._clock()
        self._attempts.update_task(task, update)

    async def end_task(self, task: str, update: TaskUpdate) -> None:
        """Record the last update of a task that has ended, and forget its videos."""
        self._last_activity = self._clock()
        self._attempts.end_task(task, update)

    async def set_stop_reason(self, reason: str) -> None:
        """Record why a task ends the run; the first reason counts."""
        self._stop_reason = self._stop_reason or reason

    async def stop_reason(self) -> str | None:
        return self._stop_reason

    async def state(self) -> RunState:
        """Return the progress of the run; encoders that do not respond in time count as last
        reported."""
        up = await self._pool.poll()
        return RunState(
            self._attempts.done,
            self._attempts.failed,
            self._attempts.frames,
            self._pool.work,
            self._pool.waiting,
            placed=self._pool.placed,
            up=up,
            ended_tars=self._attempts.ended_tasks,  # a task reads one
        )

    async def longest_running(self) -> tuple[str, float] | None:
        """Return the video that has been in progress longest, and for how many seconds.

        The last update of a task may be older than the video that it is at now, so its crash log is
        read for the name.
        """
        found = self._attempts.longest_running()
        if found is None:
            return None
        process, video = found
        names: dict[Key, str] = await _read_on_node(process, read_busy, {})
        return next(iter(names.values()), video.video), video.since_s

    async def _run_upkeep(self, metrics: RunMetrics) -> None:
        while True:
            with suppress(RayError):  # the cluster does not answer: retry in the next round
                if self._pool:
                    self._adjust_pool()
            await asyncio.sleep(PERIOD_S)
            state = await self.state()
            metrics.record(state)
            frames = sum(stats.frames for stats in state.encoders)
            if frames > self._frames:
                self._last_activity = self._clock()
            self._frames = frames
            if self._announces_stalls:
                self._announce_stall(state)
            self.release_if_idle()

    def _announce_stall(self, state: RunState) -> None:
        """Say what the encoders wait for. Used in a step of a user's pipeline: Ray shows the output
        of actors to its driver."""
        now = self._clock()
        if state.placed or not self._waiting:
            self._last_placed = now
        elif now - self._last_placed >= SILENCE_S:
            self._last_placed = now
            free, cluster = self._ray.available_resources(), self._ray.cluster_resources()
            say_to_user(f"rayclip: {stall_reason(state, None, self._resources, free, cluster)}")

    def _adjust_pool(self) -> None:
        """Start the encoders that the current nodes should have."""
        nodes = {node["NodeID"]: node["Resources"] for node in self._ray.nodes() if node["Alive"]}
        self._pool.grow_to(self._resources.scaled_to([*nodes.values()]), nodes)

    def release_if_idle(self) -> None:
        """Release the encoders if no task has used or requested one for a while."""
        if self._idle_s is None or not self._pool or self._waiting:
            return
        quiet_s = self._clock() - self._last_activity
        if quiet_s > (QUIET_S if self._attempts.running_tasks else self._idle_s):
            self._pool.release()


def start_control_actor(
    models: Sequence[EncoderSettings],
    resources: EncoderResources,
    checkpoints: Sequence[bytes | None] | None = None,
    idle_s: float | None = None,
    announces_stalls: bool = False,
) -> Any:
    """Start the control actor on this node, so that it lives and dies with the driver.

    Args:
        models: how each encoder loads its models.
        resources: what the encoders request of their nodes.
        checkpoints: content of the checkpoints of models that other nodes may not have.
        idle_s: release the encoders after this long without a task; they start again when a task
            requests one. None keeps them.
        announces_stalls: say every 30 s what the encoders wait for, because the driver does not.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(ControlActor).options(
        num_cpus=0, max_concurrency=MAX_CONCURRENT_CALLS, scheduling_strategy=here
    )
    return actor.remote(models, resources, checkpoints, idle_s, announces_stalls)


async def _read_on_node(process: WorkerProcess, read: Callable[[str], T], default: T) -> T:
    """Read the crash log of a process on its node; return the default if the node is gone."""
    on_node = NodeAffinitySchedulingStrategy(process.node_id, soft=False)
    reader: Any = ray.remote(read).options(num_cpus=0, scheduling_strategy=on_node)
    try:
        answer: T = await asyncio.wait_for(reader.remote(process.crash_log), CRASH_LOG_TIMEOUT_S)
    except (RayError, TimeoutError):
        return default
    return answer
