"""The control actor: it starts the encoders of a run and counts attempts at videos.

No frame passes through it, and it knows nothing that the output folder does not.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayclip import last_words
from rayclip.actors.attempts import AttemptLog, Death, Process
from rayclip.actors.encoder import EncoderSettings
from rayclip.actors.fleet import EncoderAddress, Fleet
from rayclip.actors.metrics import PERIOD_S, RunMetrics
from rayclip.actors.resources import EncoderResources
from rayclip.actors.run_state import RunState
from rayclip.zeroshot import ZeroShot

CONTROL_CALLS_AT_ONCE = 1000
STEP = "rayclip.encode "  # what the names of control actors that give way begin with
LAST_WORDS_WITHIN_S = 20.0  # else their node is taken for lost
YIELD_S = 1.0  # without a task, after which encoders are released to others that wait for room
QUIET_S = 600.0  # without a word of a task that is said to be at work, which is then taken for lost


class Pool:
    """Starts the encoders of a run and remembers which videos were begun. Runs as an actor."""

    def __init__(
        self,
        settings: EncoderSettings,
        resources: EncoderResources,
        checkpoint: bytes | None,
        idle_s: float | None,
    ) -> None:
        self._fleet = Fleet(settings, checkpoint)
        self._resources = resources
        self._idle_s = idle_s
        self._last_heard = time.monotonic()
        self._stop_reason: str | None = None
        self._attempts = AttemptLog()
        metrics = RunMetrics(settings.spec.model_name)
        self._recording = asyncio.ensure_future(self._record(metrics))
        if idle_s is None:
            self._fleet.start(resources)

    async def ask_for(self, resources: EncoderResources) -> None:
        """Start encoders like these when the next ones are started."""
        self._resources = resources

    async def encoders(self, without: frozenset[int] = frozenset()) -> list[EncoderAddress]:
        """Wait until an encoder is up, and give all that are; none where there can be no more.

        Those that are silent, as when their nodes are gone, are left out while others answer.

        Raises:
            RunStopped: none can start.
        """
        self._last_heard = time.monotonic()
        if not self._fleet:
            self._fleet.start(self._resources)
            self._making_room = asyncio.create_task(self._make_room())
        return await self._fleet.addresses(without)

    async def give_way(self) -> None:
        """Release the encoders to others who wait for room, unless they are in use."""
        if self._is_idle(YIELD_S):
            self._fleet.release()

    async def zero_shot(self, texts: tuple[str, ...]) -> ZeroShot:
        """Let an encoder encode texts."""
        first = (await self.encoders())[0]
        answer: ZeroShot = await first.handle.zero_shot.remote(texts)
        return answer

    async def begin_group(self, group: str, process: Process) -> bool:
        """Note that a task begins; whether it ran before, so that its process must have died or
        its output was lost."""
        self._last_heard = time.monotonic()
        before = self._attempts.process_of(group)
        death = None if before is None else await _death_of(before)
        return self._attempts.begin_group(group, process, death)

    async def begin(self, group: str, position: int, video: str) -> list[Death]:
        """Note that a video is begun; what ended the attempts at it so far."""
        self._last_heard = time.monotonic()
        return self._attempts.begin(group, position, video)

    async def made(self, group: str, position: int) -> None:
        """Note that what was made of a video waits to be saved."""
        self._attempts.made(group, position)

    async def end(self, group: str, position: int, failed: bool, frames: int) -> None:
        """Note that a video is finished, for better or worse."""
        self._attempts.end(group, position, failed, frames)

    async def end_group(self, group: str) -> None:
        """Forget the videos of a task, which is finished."""
        self._last_heard = time.monotonic()
        self._attempts.end_group(group)

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
            longest=self._attempts.longest(),
        )

    async def _record(self, metrics: RunMetrics) -> None:
        while True:
            await asyncio.sleep(PERIOD_S)
            metrics.record(await self.state())
            if self._idle_s is not None and self._is_idle(self._idle_s):
                self._fleet.release()

    async def _make_room(self) -> None:
        """While encoders wait for room, ask those who may have it to give way: the steps of other
        datasets of this program, which may be done."""
        me = ray.get_runtime_context().get_actor_name()
        while self._fleet.waits_for_room:
            await asyncio.sleep(YIELD_S)
            for name in ray.util.list_named_actors():
                if name.startswith(STEP) and name != me:
                    with suppress(ValueError):  # it is gone
                        ray.get_actor(name).give_way.remote()

    def _is_idle(self, after_s: float) -> bool:
        quiet_s = time.monotonic() - self._last_heard
        return bool(self._fleet) and quiet_s > (QUIET_S if self._attempts.groups else after_s)


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
    actor = ray.remote(Pool).options(
        name=None if idle_s is None else STEP + secrets.token_hex(8),
        num_cpus=0,
        max_concurrency=CONTROL_CALLS_AT_ONCE,
        scheduling_strategy=here,
    )
    return actor.remote(settings, resources, checkpoint, idle_s)


async def _death_of(process: Process) -> Death:
    """Ask the node of a process that is dead what it died of."""
    there = NodeAffinitySchedulingStrategy(process.node_id, soft=False)
    reader = ray.remote(last_words.read).options(num_cpus=0, scheduling_strategy=there)
    try:
        words = await asyncio.wait_for(reader.remote(process.last_words), LAST_WORDS_WITHIN_S)
    except (RayError, TimeoutError):  # the node is gone
        words = None
    return Death.told_by(words)
