"""The control actor: it starts the encoders of a run and counts attempts at videos.

No frame passes through it, and it knows nothing that the output folder does not.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayclip import last_words
from rayclip.actors.attempts import AttemptLog, Death, Process
from rayclip.actors.batch_stats import BatchStats
from rayclip.actors.encoder import Encoder, EncoderReport, EncoderSettings
from rayclip.actors.metrics import PERIOD_S, RunMetrics
from rayclip.actors.resources import EncoderResources
from rayclip.actors.run_state import RunState
from rayclip.errors import RunStopped
from rayclip.zeroshot import ZeroShot

ENCODE_CALLS_AT_ONCE = 256
CONTROL_CALLS_AT_ONCE = 1000
STATS_TIMEOUT_S = 1.0
CONTROL = "control"  # calls of this group do not wait for frames to be encoded
SILENT_S = 15.0  # without an answer, after which an encoder gets no more frames
LAST_WORDS_WITHIN_S = 20.0  # else their node is taken for lost


@dataclass(frozen=True)
class EncoderAddress:
    """An encoder that is up, and where."""

    index: int
    handle: Any
    node_id: str


class Pool:
    """Starts the encoders of a run and remembers which videos were begun. Runs as an actor."""

    def __init__(
        self, settings: EncoderSettings, resources: EncoderResources, checkpoint: bytes | None
    ) -> None:
        options: dict[str, Any] = {
            "num_cpus": resources.cpus,
            "num_gpus": resources.gpus,
            "max_restarts": -1,
            "max_task_retries": -1,
            "max_concurrency": ENCODE_CALLS_AT_ONCE,
            "concurrency_groups": {CONTROL: 4},
            "scheduling_strategy": "SPREAD",
        }
        encoder = ray.remote(**options)(Encoder)
        # Held on to: an encoder that is started again needs its arguments again.
        self._content = None if checkpoint is None else ray.put(checkpoint)
        self._handles: list[Any] = [
            encoder.remote(settings, self._content) for _ in range(resources.encoders)
        ]
        self._starting = {
            asyncio.ensure_future(self._ready(handle)): i for i, handle in enumerate(self._handles)
        }
        self._placing = [asyncio.ensure_future(self._placed(handle)) for handle in self._handles]
        self._up: dict[int, str] = {}
        self._answered: dict[int, float] = {}
        self._reasons: list[str] = []
        self._stop_reason: str | None = None
        self._attempts = AttemptLog()
        self._stats: dict[tuple[int, int], BatchStats] = {}
        self._waiting = [0] * resources.encoders
        metrics = RunMetrics(settings.spec.model_name, resources.encoders)
        self._recording = asyncio.ensure_future(self._record(metrics))

    async def encoders(self, without: frozenset[int] = frozenset()) -> list[EncoderAddress]:
        """Wait until an encoder is up, and give all that are; none where there can be no more.

        Those that are silent, as when their nodes are gone, are left out while others answer.

        Raises:
            RunStopped: none can start.
        """
        self._collect_started()
        while not (up := [i for i in self._up if i not in without]):
            if not self._starting and self._up:
                return []
            if not self._starting:
                raise RunStopped(self._reasons[-1])
            await asyncio.wait(self._starting, return_when=asyncio.FIRST_COMPLETED)
            self._collect_started()
        now = time.monotonic()
        answering = [i for i in up if now - self._answered[i] < SILENT_S]
        return [EncoderAddress(i, self._handles[i], self._up[i]) for i in answering or up]

    async def zero_shot(self, texts: tuple[str, ...]) -> ZeroShot:
        """Let an encoder encode texts."""
        first = (await self.encoders())[0]
        answer: ZeroShot = await first.handle.zero_shot.remote(texts)
        return answer

    async def begin_group(self, group: str, process: Process) -> bool:
        """Note that a task begins; whether it ran before, so that its process must have died or
        its output was lost."""
        before = self._attempts.process_of(group)
        death = None if before is None else await _death_of(before)
        return self._attempts.begin_group(group, process, death)

    async def begin(self, group: str, position: int, video: str) -> list[Death]:
        """Note that a video is begun; what ended the attempts at it so far."""
        return self._attempts.begin(group, position, video)

    async def end(self, group: str, position: int, failed: bool, frames: int) -> None:
        """Note that a video is finished, for better or worse."""
        self._attempts.end(group, position, failed, frames)

    async def end_group(self, group: str) -> None:
        """Forget the videos of a task, which is finished."""
        self._attempts.end_group(group)

    async def stop(self, reason: str) -> None:
        """Note why a task ends the run."""
        self._stop_reason = self._stop_reason or reason

    async def stop_reason(self) -> str | None:
        return self._stop_reason

    async def state(self) -> RunState:
        """How far the run is; encoders that do not answer in time count as last seen."""
        self._collect_started()
        up = 0
        asked = {asyncio.ensure_future(_report(self._handles[i])): i for i in self._up}
        if asked:
            answered, late = await asyncio.wait(asked, timeout=STATS_TIMEOUT_S)
            for task in late:
                task.cancel()
            for task in answered:
                if task.exception() is None:
                    up += 1
                    encoder, report = asked[task], task.result()
                    self._answered[encoder] = time.monotonic()
                    self._stats[encoder, report.process] = report.work
                    self._waiting[encoder] = report.waiting
        work = [BatchStats() for _ in self._handles]
        for (index, _), stats in self._stats.items():
            work[index] += stats
        return RunState(
            self._attempts.done,
            self._attempts.failed,
            self._attempts.frames,
            tuple(work),
            tuple(self._waiting),
            placed=sum(placing.done() for placing in self._placing),
            up=up,
            longest=self._attempts.longest(),
        )

    async def _record(self, metrics: RunMetrics) -> None:
        while True:
            await asyncio.sleep(PERIOD_S)
            metrics.record(await self.state())

    async def _placed(self, handle: Any) -> None:
        with suppress(RayError):  # whoever waits for it to be up will see
            await handle.placed.options(concurrency_group=CONTROL).remote()

    async def _ready(self, handle: Any) -> str:
        node_id: str = await handle.ready.options(concurrency_group=CONTROL).remote()
        return node_id

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


def start_pool(
    settings: EncoderSettings, resources: EncoderResources, checkpoint: bytes | None = None
) -> Any:
    """Start the control actor on this node, so that it lives and dies with the driver.

    Args:
        settings: of the encoders.
        resources: what they ask of their nodes.
        checkpoint: the content of a checkpoint that other nodes may not have.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(Pool).options(
        num_cpus=0, max_concurrency=CONTROL_CALLS_AT_ONCE, scheduling_strategy=here
    )
    return actor.remote(settings, resources, checkpoint)


def left_for_good(error: BaseException) -> bool:
    """Whether an encoder does not come back because it died too often."""
    return isinstance(error, RayActorError) and "exit_actor" in str(error)


def reason_of(error: BaseException) -> str:
    """The first line of what really happened, without Ray's wrapping."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        while isinstance(cause, RayTaskError):
            cause = cause.cause
        error = cause or error
    return f"{str(error).strip().partition(chr(10))[0] or type(error).__name__}"


async def _report(handle: Any) -> EncoderReport:
    answer: EncoderReport = await handle.report.options(concurrency_group=CONTROL).remote()
    return answer


async def _death_of(process: Process) -> Death:
    """Ask the node of a process that is dead what it died of."""
    there = NodeAffinitySchedulingStrategy(process.node_id, soft=False)
    reader = ray.remote(last_words.read).options(num_cpus=0, scheduling_strategy=there)
    try:
        words = await asyncio.wait_for(reader.remote(process.last_words), LAST_WORDS_WITHIN_S)
    except (RayError, TimeoutError):  # the node is gone
        words = None
    return Death.told_by(words)
