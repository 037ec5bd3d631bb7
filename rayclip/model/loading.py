"""Find a model, get its checkpoint and load it for a device."""

from __future__ import annotations

from typing import get_args

from rayclip.errors import UsageError
from rayclip.model.load_stage import stage
from rayclip.model.loaded_model import LoadedModel
from rayclip.model.models import CustomWeights, ModelSpec, describe, family_of
from rayclip.model.precision import CPU_BATCH_SIZE, gpu_batch_size
from rayclip.model_options import Activation, Precision, refuse_unless_custom


def load_encoder(
    model_name: str,
    weights: str | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    precision: Precision = "auto",
    compile: bool = False,  # noqa: A002
    activation: Activation | None = None,
) -> LoadedModel:
    """Load a model, for example to search what was saved with texts or pictures.

    ``load_clip`` is the same function.

    Args:
        model_name: as for ``extract``: a name of ``clip.available_models()``, ``custom``,
            ``demo``, ``open_clip:ARCH/TAG``, ``hf-hub:ORG/REPO``, ``local-dir:PATH`` or
            ``timm:NAME``. Weights are downloaded on first use.
        weights: the checkpoint of ``custom``: a TorchScript archive, a state dict or a
            safetensors file.
        device: ``cpu``, ``cuda`` or ``cuda:N``; None takes the first GPU, or the CPU if there is
            none.
        batch_size: frames per forward pass; None chooses it by the device.
        precision: the number format of the model: ``fp32``, ``fp16``, ``bf16``, or ``auto``, which
            is the choice of OpenAI's loader: fp16 on CUDA, fp32 on CPUs. Features are always
            float32.
        compile: compile the image encoder's forward pass once, which takes up to minutes and needs
            a C++ compiler.
        activation: of ``custom``: ``quickgelu`` or ``gelu``; None takes what a configuration beside
            the weights says, or ``quickgelu``.

    Raises:
        UsageError: there is no such model, device or precision, the checkpoint is not a CLIP model,
            or it cannot be compiled here.
        WeightsUnavailable: the weights cannot be downloaded.
    """
    import torch

    refuse_unless_custom(model_name, weights, activation)
    if precision not in get_args(Precision):
        choices = ", ".join(get_args(Precision))
        raise UsageError(f"precision must be one of {choices}, not {precision!r}.")
    if activation not in (None, *get_args(Activation)):
        choices = ", ".join(get_args(Activation))
        raise UsageError(f"activation must be one of {choices}, not {activation!r}.")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}.")
    if device not in (None, "cpu"):
        gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        if device not in (["cuda", *gpus] if gpus else []):
            devices = ", ".join(["cpu", *gpus])
            raise UsageError(f"There is no device {device!r} here; choose one of: {devices}.")
    spec = describe(model_name, CustomWeights(weights, activation=activation))
    return load_spec(spec, device, batch_size, precision=precision, compile=compile)


load_clip = load_encoder


@stage("Loading the model")
def load_spec(
    spec: ModelSpec,
    device: str | None,
    batch_size: int | None,
    threads: int | None = None,
    precision: Precision = "auto",
    compile: bool = False,  # noqa: A002
) -> LoadedModel:
    """Load a model described by :func:`~rayclip.model.models.describe`.

    Raises:
        UsageError: its checkpoint has changed since, or it cannot be compiled here.
        WeightsUnavailable: its weights cannot be downloaded.
    """
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    network = family_of(spec.model_name).load(spec, device, precision)
    notes = [*network.notes]
    if batch_size is None and torch.device(device).type == "cpu":
        batch_size = CPU_BATCH_SIZE
    elif batch_size is None:
        memory = torch.cuda.get_device_properties(device).total_memory
        batch_size = gpu_batch_size(memory, network.frame_bytes)
        notes.append(f"batch size: {batch_size}, for a GPU of {memory / 2**30:.0f} GiB")
    loaded = LoadedModel(network, batch_size, threads, compile)
    loaded.notes += notes
    return loaded
