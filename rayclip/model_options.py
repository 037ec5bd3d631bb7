"""The settings of models, which the command line and Python share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rayclip.errors import UsageError
from rayclip.option_values import (
    AnyPath,
    check_device,
    parse_model_names,
    to_model_names,
    to_path,
)
from rayclip.options import option

Precision = Literal["auto", "fp32", "fp16", "bf16"]
Activation = Literal["quickgelu", "gelu"]


@dataclass(frozen=True)
class ModelOptions:
    """The part of :class:`rayclip.settings.Settings` that says which models encode the frames, and
    how."""

    model_name: tuple[str, ...] = option(
        ("ViT-B/32",),
        "model",
        "One of OpenAI's (`ViT-B/32`), `custom`, `demo`, or a model of open_clip or timm: "
        "`rayclip models` lists them. May be given several times.",
        details="Several models share one pass over the videos: each frame is decoded once, and "
        "[each model has its own folder](models.md#several-models). OpenAI's names are `ViT-B/32`, "
        "`ViT-B/16`, `ViT-L/14`, `ViT-L/14@336px`, `RN50`, `RN101`, `RN50x4`, `RN50x16` and "
        "`RN50x64`. `custom` is the checkpoint given by "
        "`weights`. `demo` is a tiny model that comes with rayclip and recognises coloured shapes. "
        "The others are `open_clip:ARCH/TAG`, `hf-hub:ORG/REPO`, `local-dir:PATH` and `timm:NAME`, "
        "with `pip install 'rayclip[open_clip]'`: see [docs/models.md](models.md).",
        accepts=str | Sequence[str],
        convert=to_model_names,
        parse=parse_model_names,
        encode=True,
    )
    weights: str | None = option(
        None,
        "model",
        "The checkpoint of the model `custom`: a path or URL.",
        details="A TorchScript archive, a state dict or a safetensors file, with the names of "
        "OpenAI's, open_clip's or Hugging Face's CLIP, optionally inside a training script's "
        "dictionary (`state_dict`, `model_state_dict`, `model`) or with a prefix (`module.`, "
        "`model.`, `clip.`, `_orig_mod.`, …). A TorchScript archive is code: "
        "[use only archives that you trust](../SECURITY.md#what-is-not-promised).",
        accepts=AnyPath | None,
        convert=to_path,
        metavar="PATH",
        encode=True,
    )
    activation: Activation | None = option(
        None,
        "model",
        "Activation of the model `custom`: `quickgelu` (OpenAI's) or `gelu` (most of open_clip's); "
        "by default, what is beside the weights.",
        details="Weights do not say it, and with the wrong one features are wrong. By default, it "
        "is what `config.json` says beside weights of Hugging Face's CLIP, or "
        "`open_clip_config.json` beside others; without them, `quickgelu`.",
        encode=True,
    )
    batch_size: int | None = option(
        None,
        "model",
        "Frames per forward pass; by default, chosen by device.",
        details="The default is 16 on CPUs and 16 to 256 on GPUs, "
        "[depending on the model and the GPU's memory](precision.md#frames-per-forward-pass). "
        "Shorter batches are padded to this shape, so that a frame's feature never depends on "
        "the rest of its batch.",
        encode=True,
    )
    precision: Precision = option(
        "auto",
        "model",
        "Number format of the model: `auto` (fp16 on GPUs, fp32 on CPUs), `fp32`, `fp16` or "
        "`bf16`.",
        details="[docs/precision.md](precision.md) compares their speed and accuracy.",
        encode=True,
        compared=True,
    )
    compile: bool = option(
        False,
        "model",
        "Compile the forward pass at start, which takes up to minutes and needs a C++ compiler.",
        encode=True,
    )
    device: str | None = option(
        None,
        "model",
        "`cpu`, `cuda` or `cuda:N`; by default all GPUs, or the CPU if this machine has none.",
        details="On any other Ray without GPUs, set `cpu`, or set `encoders` to wait for GPUs to "
        "join.",
        convert=check_device,
        encode=True,
    )


def refuse_unless_custom(
    model_name: str, weights: str | None, activation: Activation | None
) -> None:
    """Refuse what only the model ``custom`` has if another one was asked for.

    Raises:
        UsageError: it was.
    """
    if model_name == "custom":
        return
    for subject, value in (("weights are", weights), ("activation is", activation)):
        if value is not None:
            raise UsageError(
                f"{subject} only for model_name custom, but model_name is {model_name}."
            )
