"""The encoder actor: the models of a run on one device, fed by decoding tasks."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from rayclip.actors.device_batchers import DeviceBatchers
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
from rayclip.model_options import Precision
from rayclip.settings import Settings


@dataclass(frozen=True)
class EncoderSettings:
    """How to load a model of an encoder.

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


def load_encoder_models(
    models: Sequence[EncoderSettings], checkpoints: Sequence[bytes | None] | None = None
) -> list[LoadedModel]:
    """Load the models of an encoder, and check that they fit on its device together.

    Args:
        models: what to load.
        checkpoints: for each, see :func:`load_encoder_model`.

    Raises:
        RunStopped: one cannot be loaded, or they do not fit.
    """
    contents = checkpoints or [None] * len(models)
    try:
        loaded = [load_encoder_model(*model) for model in zip(models, contents, strict=True)]
        if len(loaded) > 1 and loaded[0].device != "cpu":
            for model in loaded:  # a batch that is halved later would give other bits
                model.encode_image(model.black_frames(model.batch_size))
    except Exception as error:
        cause = error.__cause__ if isinstance(error, RunStopped) else error
        if len(models) > 1 and cause is not None and is_out_of_memory(cause):
            names = " and ".join(model.spec.model_name for model in models)
            raise RunStopped(
                f"No encoder can start: {names} do not fit into the memory of the device together: "
                "run them one after the other, or with a smaller batch_size."
            ) from error
        raise
    return loaded


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
    """The models of a run on one device, as an asyncio actor: a waiting request holds no thread.

    Loading the models and forward passes run on threads of the batchers.
    """

    def __init__(
        self,
        models: Sequence[EncoderSettings],
        checkpoints: Sequence[bytes | None] | None = None,
    ) -> None:
        """Start loading the models.

        Args:
            models: what to load.
            checkpoints: content of each checkpoint, if its file is on another machine.

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
        load = partial(self._load, models, checkpoints, is_restart)
        resizings = [model.spec.resizing for model in models]
        self._batchers = DeviceBatchers(resizings, load, self._crash_log)

    def _load(
        self,
        models: Sequence[EncoderSettings],
        checkpoints: Sequence[bytes | None] | None,
        is_restart: bool,
    ) -> list[LoadedModel]:
        with self._crash_log.tracking(LOADING):
            if is_restart:
                return self._reload(models, checkpoints)
            return load_encoder_models(models, checkpoints)

    def _reload(
        self, models: Sequence[EncoderSettings], checkpoints: Sequence[bytes | None] | None
    ) -> list[LoadedModel]:
        """Load the models after a death, and try them: frames must not be blamed for a broken
        device."""
        try:
            loaded = load_encoder_models(models, checkpoints)
        except RunStopped as error:
            self._crash_log.end_process(Cause.DEVICE, str(error))
        try:
            for model in loaded:
                model.encode_image(model.black_frames(1))
        except Exception as error:
            if not is_out_of_memory(error):
                self._crash_log.end_process(Cause.DEVICE, first_line(error))
        return loaded

    async def placed(self) -> None:
        """Return as soon as the actor has a process, with or without a model."""

    async def ready(self) -> str:
        """Wait for the models, and return the node's id; raises what loading raised."""
        await self._models()
        return self._node_id

    async def encode(self, request: EncodeRequest) -> EncodeReply:
        """Encode frames in batches shared with other requests."""
        queued = [
            self._batchers.submit(chunk.frames, chunk.models, chunk.id) for chunk in request.chunks
        ]
        if request.is_awaited:
            self._batchers.flush()
        futures = [asyncio.wrap_future(future) for chunk in queued for future in chunk]
        results = iter(await asyncio.gather(*futures, return_exceptions=True))
        window = self._quota.window_for(request.task, time.monotonic())
        by_chunk = [[_sendable(next(results)) for _ in chunk] for chunk in queued]
        return EncodeReply(by_chunk, window)

    async def flush(self) -> None:
        """Let no batch wait for more frames: a task waits for those it has sent."""
        self._batchers.flush()

    async def zero_shot(self, texts: tuple[str, ...]) -> ZeroShot:
        """Encode texts, once per run."""
        models = await self._models()
        try:
            return await asyncio.to_thread(make_zero_shot, models[0], texts)
        except Exception as error:
            if is_poisoned(error):
                self._crash_log.end_process(Cause.DEVICE, first_line(error))
            raise

    async def report(self) -> EncoderReport:
        """Report what this process has done."""
        batchers = self._batchers
        work = replace(batchers.stats, host=self._host)
        return EncoderReport(
            os.getpid(), self._node_id, work, batchers.waiting, batchers.ready.done()
        )

    async def _models(self) -> Sequence[LoadedModel]:
        return await asyncio.shield(asyncio.wrap_future(self._batchers.ready))


def _sendable(result: Features | BaseException) -> Features | Exception:
    """Replace an error by one that can be sent: some of torch's cannot be pickled."""
    if isinstance(result, BaseException) and not isinstance(result, RunStopped):
        return RuntimeError(first_line(result))
    return result
