"""The encoder actor: one CLIP on one device, fed by decoding tasks."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from rayclip.actors.batcher import Batcher
from rayclip.actors.device_faults import first_line, is_given_up, is_out_of_memory, is_poisoned
from rayclip.actors.flow_control import Quota, budget_bytes
from rayclip.actors.messages import EncodeReply, EncodeRequest, EncoderReport, Features
from rayclip.console import node_name
from rayclip.errors import RayclipError, RunStopped
from rayclip.io.crash_log import LOADING, Cause, CrashLog
from rayclip.model.loaded_model import LoadedModel
from rayclip.model.loading import load_spec
from rayclip.model.models import ModelSpec
from rayclip.model.weights import store_checkpoint
from rayclip.model.zeroshot import ZeroShot
from rayclip.settings import Precision, Settings


@dataclass(frozen=True)
class EncoderSettings:
    """How to load the model of an encoder.

    Attributes:
        spec: the model.
        device: ``cpu`` or ``cuda``; None uses what is there.
        batch_size: frames per forward pass; None lets the device decide.
        threads: CPU threads, each for a forward pass of its own; None uses all.
        precision: what the model computes in.
        compile: compile the forward pass first.
    """

    spec: ModelSpec
    device: str | None
    batch_size: int | None
    threads: int | None
    precision: Precision = "auto"
    compile: bool = False

    @classmethod
    def of(
        cls, settings: Settings, spec: ModelSpec, device: str, threads: int | None = None
    ) -> EncoderSettings:
        """Return what encoders are made from in a run or in a pipeline's step."""
        return cls(spec, device, settings.batch_size, threads, settings.precision, settings.compile)


def load_encoder_model(settings: EncoderSettings, checkpoint: bytes | None = None) -> LoadedModel:
    """Load the model.

    Args:
        settings: what to load.
        checkpoint: content of the checkpoint, if its file is on another machine.

    Raises:
        RunStopped: it cannot be loaded.
    """
    try:
        spec = settings.spec
        if checkpoint is not None:
            path = store_checkpoint(checkpoint, spec.weights_sha256)
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


def make_zero_shot(model: LoadedModel, texts: tuple[str, ...]) -> ZeroShot:
    """Encode the texts that frames are compared with."""
    return ZeroShot(
        texts,
        model.encode_text(texts),
        model.logit_scale,
        model.logit_bias,
        model.probability,
    )


class Encoder:
    """One model on one device, as an asyncio actor: a waiting request holds no thread.

    Loading the model and forward passes run on threads of the batcher.
    """

    def __init__(self, settings: EncoderSettings, checkpoint: bytes | None = None) -> None:
        """Start loading the model.

        Args:
            settings: what to load.
            checkpoint: content of the checkpoint, if its file is on another machine.

        Raises:
            RunStopped: its processes died too often. Raise nothing else here: Ray never restarts an
                actor whose constructor failed, and marks the error of its calls.
        """
        import ray

        context = ray.get_runtime_context()
        self._crash_log = CrashLog(
            f"{context.get_temp_dir()}/rayclip-encoder-{context.get_actor_id()}"
        )
        if is_given_up(self._crash_log.deaths, time.time()):
            raise RunStopped("the processes of this encoder keep dying")
        self._node_id = context.get_node_id()
        node = next(node for node in ray.nodes() if node["NodeID"] == self._node_id)
        self._host = node_name(node)
        store = node["Resources"].get("object_store_memory", 0)
        self._quota = Quota(budget_bytes(store))
        is_restart = context.was_current_actor_reconstructed
        load = partial(self._load, settings, checkpoint, is_restart)
        self._batcher = Batcher(load, crash_log=self._crash_log)

    def _load(
        self, settings: EncoderSettings, checkpoint: bytes | None, is_restart: bool
    ) -> LoadedModel:
        with self._crash_log.tracking(LOADING):
            if is_restart:
                return self._reload(settings, checkpoint)
            return load_encoder_model(settings, checkpoint)

    def _reload(self, settings: EncoderSettings, checkpoint: bytes | None) -> LoadedModel:
        """Load the model after a death, and try it: frames must not be blamed for a broken
        device."""
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
        """Return as soon as the actor has a process, with or without a model."""

    async def ready(self) -> str:
        """Wait for the model, and return the node's id; raises what loading raised."""
        await self._model()
        return self._node_id

    async def encode(self, request: EncodeRequest) -> EncodeReply:
        """Encode frames in batches shared with other requests."""
        queued = [self._batcher.submit(chunk.frames, chunk.id) for chunk in request.chunks]
        futures = [asyncio.wrap_future(future) for future in queued]
        results = await asyncio.gather(*futures, return_exceptions=True)
        window = self._quota.window_for(request.task, time.monotonic())
        return EncodeReply([_sendable(result) for result in results], window)

    async def zero_shot(self, texts: tuple[str, ...]) -> ZeroShot:
        """Encode texts, once per run."""
        model = await self._model()
        try:
            return await asyncio.to_thread(make_zero_shot, model, texts)
        except Exception as error:
            if is_poisoned(error):
                self._crash_log.end_process(Cause.DEVICE, first_line(error))
            raise

    async def report(self) -> EncoderReport:
        """Report what this process has done."""
        work = replace(self._batcher.stats, host=self._host)
        batcher = self._batcher
        return EncoderReport(
            os.getpid(), self._node_id, work, batcher.waiting, batcher.ready.done()
        )

    async def _model(self) -> LoadedModel:
        model = await asyncio.shield(asyncio.wrap_future(self._batcher.ready))
        assert isinstance(model, LoadedModel)
        return model


def _sendable(result: Features | BaseException) -> Features | Exception:
    """Replace an error by one that can be sent: some of torch's cannot be pickled."""
    if isinstance(result, BaseException) and not isinstance(result, RunStopped):
        return RuntimeError(first_line(result))
    return result
