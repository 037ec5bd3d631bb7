"""The encoder actor: a CLIP on one device, fed by decoding tasks."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rayclip.actors.batcher import Batcher, BatchStats
from rayclip.clip_model import ClipModel, load_spec
from rayclip.errors import RayclipError, RunStopped
from rayclip.models import ModelSpec
from rayclip.weights import placed_checkpoint
from rayclip.zeroshot import ZeroShot


@dataclass(frozen=True)
class EncoderSettings:
    """What an encoder is made from.

    Attributes:
        spec: the model.
        device: ``cpu`` or ``cuda``; None takes what there is.
        batch_size: frames per forward pass; None lets the device decide.
        threads: CPU threads, each for a forward pass of its own; None takes all.
    """

    spec: ModelSpec
    device: str | None
    batch_size: int | None
    threads: int | None


def load_encoder_model(settings: EncoderSettings) -> ClipModel:
    """Load the model.

    Raises:
        RunStopped: it cannot be loaded.
    """
    try:
        return load_spec(settings.spec, settings.device, settings.batch_size, settings.threads)
    except RayclipError as error:
        raise RunStopped(f"No encoder can start: {error}") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunStopped(f"No encoder can start: {reason}") from error


def zero_shot_of(model: ClipModel, texts: tuple[str, ...]) -> ZeroShot:
    """What frames are compared with: texts as this model sees them."""
    return ZeroShot(texts, model.encode_text(texts), model.logit_scale)


class Encoder:
    """One model on one device. Its methods run on threads; images go through the batcher."""

    def __init__(self, settings: EncoderSettings, checkpoint: bytes | None = None) -> None:
        """Start loading the model.

        Args:
            settings: what to load.
            checkpoint: the content of the checkpoint, where its file is on another machine.
        """
        if checkpoint is not None:
            path = placed_checkpoint(checkpoint, settings.spec.weights_sha256)
            settings = replace(settings, spec=replace(settings.spec, checkpoint=path))
        self._batcher = Batcher(lambda: load_encoder_model(settings))

    def ready(self) -> str:
        """Wait for the model, and name the node; raises what went wrong while it was loaded."""
        import ray

        self._batcher.ready.result()
        return ray.get_runtime_context().get_node_id()

    def encode(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 ``[n, n_px, n_px, 3]`` to float32 ``[n, D]``, in batches shared with others."""
        return self._batcher.submit(frames).result()

    def zero_shot(self, texts: tuple[str, ...]) -> ZeroShot:
        """Encode texts once for a whole run."""
        model = self._batcher.ready.result()
        assert isinstance(model, ClipModel)
        return zero_shot_of(model, texts)

    def stats(self) -> tuple[int, BatchStats]:
        """The process id, which tells one life of the actor from the next, and its work."""
        return os.getpid(), self._batcher.stats
