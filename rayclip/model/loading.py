"""Find a model, get its checkpoint and load it for a device."""

from __future__ import annotations

import os
from typing import get_args

from rayclip.errors import UsageError
from rayclip.model.checkpoint import file_sha256, load_model
from rayclip.model.clip_model import ClipModel
from rayclip.model.load_stage import stage
from rayclip.model.models import ModelSpec, describe
from rayclip.model.precision import (
    CPU_BATCH_SIZE,
    gpu_batch_size,
    peak_bytes_per_frame,
    set_precision,
)
from rayclip.model.weights import official_checkpoint
from rayclip.settings import Precision


def load_clip(
    model_name: str,
    weights: str | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    precision: Precision = "auto",
    compile: bool = False,  # noqa: A002
) -> ClipModel:
    """Load a CLIP model.

    Args:
        model_name: a name of ``clip.available_models()``, ``custom`` or ``demo``. Official
            weights are downloaded on first use.
        weights: the checkpoint of ``custom``: a TorchScript archive or a state dict.
        device: ``cpu``, ``cuda`` or ``cuda:N``; None takes the first GPU, or the CPU if there is
            none.
        batch_size: frames per forward pass; None chooses it by the device.
        precision: the number format of the model: ``fp32``, ``fp16``, ``bf16``, or ``auto``, which
            is the choice of OpenAI's loader: fp16 on CUDA, fp32 on CPUs. Features are always
            float32.
        compile: compile the image encoder's forward pass once, which takes up to minutes and needs
            a C++ compiler.

    Raises:
        UsageError: there is no such model, device or precision, the checkpoint is not a CLIP model,
            or it cannot be compiled here.
        WeightsUnavailable: official weights cannot be downloaded.
    """
    import torch

    if weights is not None and model_name != "custom":
        raise UsageError(f"weights are only for model_name custom, but model_name is {model_name}.")
    if precision not in get_args(Precision):
        choices = ", ".join(get_args(Precision))
        raise UsageError(f"precision must be one of {choices}, not {precision!r}.")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}.")
    if device not in (None, "cpu"):
        gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        if device not in (["cuda", *gpus] if gpus else []):
            devices = ", ".join(["cpu", *gpus])
            raise UsageError(f"There is no device {device!r} here; choose one of: {devices}.")
    spec = describe(model_name, weights)
    return load_spec(spec, device, batch_size, precision=precision, compile=compile)


@stage("Loading the model")
def load_spec(
    spec: ModelSpec,
    device: str | None,
    batch_size: int | None,
    threads: int | None = None,
    precision: Precision = "auto",
    compile: bool = False,  # noqa: A002
) -> ClipModel:
    """Load a model described by :func:`~rayclip.model.models.describe`.

    Raises:
        UsageError: its checkpoint has changed since, or it cannot be compiled here.
        WeightsUnavailable: official weights cannot be downloaded.
    """
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if spec.checkpoint is None:
        checkpoint = official_checkpoint(spec.model_name, spec.weights_sha256, spec.mirror)
    else:
        checkpoint = spec.checkpoint
        exists = os.path.isfile(checkpoint)
        if not exists or file_sha256(checkpoint) != spec.weights_sha256:
            raise UsageError(
                f"{checkpoint} is missing here or differs from the one that was checked: put the "
                "same file on every node."
            )
    model = load_model(checkpoint, device, precision)
    set_precision(model, precision)
    notes = []
    if batch_size is None and torch.device(device).type == "cpu":
        batch_size = CPU_BATCH_SIZE
    elif batch_size is None:
        memory = torch.cuda.get_device_properties(device).total_memory
        batch_size = gpu_batch_size(memory, peak_bytes_per_frame(model.visual))
        notes = [f"batch size: {batch_size}, for a GPU of {memory / 2**30:.0f} GiB"]
    loaded = ClipModel(model, batch_size, threads, compile)
    loaded.notes += notes
    return loaded
