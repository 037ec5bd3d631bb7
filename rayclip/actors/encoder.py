"""The encoder actor: a CLIP on one device, fed by decoding tasks."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from rayclip.actors.batcher import Batcher
from rayclip.actors.device_faults import first_line, is_given_up, is_out_of_memory, is_poisoned
from rayclip.actors.flow_control import Quota, budget_frames
from rayclip.actors.messages import EncodeReply, EncodeRequest, EncoderReport, Features
from rayclip.console import node_name
from rayclip.errors import RayclipError, RunStopped
from rayclip.io.crash_log import LOADING, Cause, CrashLog
from rayclip.model.clip_model import ClipModel, load_spec
from rayclip.model.models import ModelSpec
from rayclip.model.weights import placed_checkpoint
from rayclip.model.zeroshot import ZeroShot
from rayclip.settings import Precision


@dataclass(frozen=True)
class EncoderSettings:
    """What an encoder is made from.

    Attributes:
        spec: the model.
        device: ``cpu`` or ``cuda``; None takes what there is.
        batch_size: frames per forward pass; None lets the device decide.
        threads: CPU threads, each for a forward pass of its own; None takes all.
        precision: what the model computes in.
        compile: compile the forward pass first.
    """

    spec: ModelSpec
    device: str | None
    batch_size: int | None
    threads: int | None
    precision: Precision = "auto"
    compile: bool = False


def load_encoder_model(settings: EncoderSettings, checkpoint: bytes | None = None) -> ClipModel:
    """Load the model.

    Args:
        settings: what to load.
        checkpoint: the content of the checkpoint, if its file is on another machine.

    Raises:
        RunStopped: it cannot be loaded.
    """
    try:
        spec = settings.spec
        if checkpoint is not None:
            path = placed_checkpoint(checkpoint, spec.weights_sha256)
            spec = replace(spec, checkpoint=path)
        return load_spec(
            spec,
            settings.device,
            settings.batch_size,
            settings.threads,
            settings.precision,
            settings.compile,
        )
    except RayclipError as error:
        raise RunStopped(f"No encoder can start: {error}") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunStopped(f"No encoder can start: {reason}") from error


def zero_shot_of(model: ClipModel, texts: tuple[str, ...]) -> ZeroShot:
    """What frames are compared with: texts as this model sees them."""
    return ZeroShot(texts, model.encode_text(texts), model.logit_scale)


class Encoder:
    """One model on one device, as an asyncio actor: requests wait for the batcher without a thread.

    What takes long, such as loading the model or a forward pass, is on threads of the batcher.
    """

    def __init__(self, settings: EncoderSettings, checkpoint: bytes | None = None) -> None:
        """Start loading the model.

        Args:
            settings: what to load.
            checkpoint: the content of the checkpoint, if its file is on another machine.

        Raises:
            RunStopped: its processes died too often. Nothing else is raised here: Ray does not
                start an actor again that failed to initialise, and marks the error of its calls.
        """
        import ray

        context = ray.get_runtime_context()
        self._crash_log = CrashLog(
            f"{context.get_temp_dir()}/rayclip-encoder-{context.get_actor_id()}"
        )
        if is_given_up(self._crash_log.deaths, time.time()):
            raise RunStopped("the processes of this encoder die again and again")
        self._node_id = context.get_node_id()
        node = next(node for node in ray.nodes() if node["NodeID"] == self._node_id)
        self._host = node_name(node)
        store = node["Resources"].get("object_store_memory", 0)
        self._quota = Quota(budget_frames(store, settings.spec.n_px))
        again = context.was_current_actor_reconstructed
        load = partial(self._load, settings, checkpoint, again)
        self._batcher = Batcher(load, crash_log=self._crash_log)

    def _load(self, settings: EncoderSettings, checkpoint: bytes | None, again: bool) -> ClipModel:
        with self._crash_log.tracking(LOADING):
            if again:
                return self._load_again(settings, checkpoint)
            return load_encoder_model(settings, checkpoint)

    def _load_again(self, settings: EncoderSettings, checkpoint: bytes | None) -> ClipModel:
        """Load the model after a death, and try it: no frames are blamed for a broken device."""
        try:
            model = load_encoder_model(settings, checkpoint)
        except RunStopped as error:
            self._crash_log.end_process(Cause.DEVICE, str(error))
        try:
            model.encode_image(np.zeros((1, model.n_px, model.n_px, 3), np.uint8))
        except Exception as error:
            if not is_out_of_memory(error):
                self._crash_log.end_process(Cause.DEVICE, first_line(error))
        return model

    async def placed(self) -> None:
        """Answer as soon as there is a process, with or without a model."""

    async def ready(self) -> str:
        """Wait for the model, and give the node's id; raises what went wrong while it loaded."""
        await self._model()
        return self._node_id

    async def encode(self, request: EncodeRequest) -> EncodeReply:
        """Encode frames in batches shared with other requests."""
        queued = [self._batcher.submit(chunk.frames, chunk.id) for chunk in request.chunks]
        waiting = [asyncio.wrap_future(one) for one in queued]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        window = self._quota.window_of(request.task, time.monotonic())
        return EncodeReply([_told(one) for one in results], window)

    async def zero_shot(self, texts: tuple[str, ...]) -> ZeroShot:
        """Encode texts once for a whole run."""
        model = await self._model()
        try:
            return await asyncio.to_thread(zero_shot_of, model, texts)
        except Exception as error:
            if is_poisoned(error):
                self._crash_log.end_process(Cause.DEVICE, first_line(error))
            raise

    async def report(self) -> EncoderReport:
        """What it did in this life."""
        work = replace(self._batcher.stats, host=self._host)
        batcher = self._batcher
        return EncoderReport(
            os.getpid(), self._node_id, work, batcher.waiting, batcher.ready.done()
        )

    async def _model(self) -> ClipModel:
        model = await asyncio.shield(asyncio.wrap_future(self._batcher.ready))
        assert isinstance(model, ClipModel)
        return model


def _told(result: Features | BaseException) -> Features | Exception:
    """An error as it can travel: not every one of torch's can."""
    if isinstance(result, BaseException) and not isinstance(result, RunStopped):
        return RuntimeError(first_line(result))
    return result
