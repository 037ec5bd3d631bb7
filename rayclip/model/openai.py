"""OpenAI's family: their nine models, a checkpoint of the user's, and the demo model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rayclip.errors import UsageError
from rayclip.model.architecture import Architecture, adapt, find_architecture
from rayclip.model.checkpoint import clip_shape, file_sha256, load_model, openai_clip
from rayclip.model.configs import MEAN, STD
from rayclip.model.families import refuse_changed
from rayclip.model.models import FAMILIES, CustomWeights, ModelSpec, Network
from rayclip.model.precision import peak_bytes_per_frame, set_precision
from rayclip.model.preprocess import Resizing
from rayclip.model.weights import (
    MIRROR_VARIABLE,
    check_official_available,
    fetch_checkpoint,
    official_checkpoint,
)

if TYPE_CHECKING:
    import torch

DEMO_WEIGHTS = Path(__file__).parent / "assets" / "demo.pt"
DEFAULT_CUSTOM_WEIGHTS = "models/clip/checkpoints/CLIP-custom.pth"  # as in video_features


class PublishedModel(NamedTuple):
    """Facts about a model that do not need its checkpoint.

    Attributes:
        n_px: side of its square input in pixels.
        dim: features per frame.
        weights_sha256: SHA-256 of the checkpoint, in hexadecimal.
    """

    n_px: int
    dim: int
    weights_sha256: str


# OpenAI's list; the checksums are part of the download URLs
OFFICIAL_MODELS = {
    "RN50": PublishedModel(
        224, 1024, "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"
    ),
    "RN101": PublishedModel(
        224, 512, "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599"
    ),
    "RN50x4": PublishedModel(
        288, 640, "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd"
    ),
    "RN50x16": PublishedModel(
        384, 768, "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa"
    ),
    "RN50x64": PublishedModel(
        448, 1024, "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c"
    ),
    "ViT-B/32": PublishedModel(
        224, 512, "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
    ),
    "ViT-B/16": PublishedModel(
        224, 512, "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"
    ),
    "ViT-L/14": PublishedModel(
        224, 768, "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
    ),
    "ViT-L/14@336px": PublishedModel(
        336, 768, "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
    ),
}
DEMO_N_PX, DEMO_DIM = 64, 64
MODEL_NAMES = (*OFFICIAL_MODELS, "custom", "demo")


def describe(model_name: str, custom: CustomWeights, revision: str | None = None) -> ModelSpec:
    """Look up a model without torch, unless its sizes are only in its checkpoint.

    Raises:
        UsageError: there is no such model, or its checkpoint is not a CLIP model.
    """
    if model_name in OFFICIAL_MODELS:
        n_px, dim, sha256 = OFFICIAL_MODELS[model_name]
        mirror = os.environ.get(MIRROR_VARIABLE)
        if mirror is not None and "://" not in mirror:
            mirror = os.path.abspath(mirror)  # workers have other working directories
        return ModelSpec(
            model_name,
            Resizing(n_px),
            dim,
            sha256,
            activation="quickgelu",
            license="MIT",
            source=mirror,
        )
    if model_name == "custom":
        return _describe_custom(custom)
    if model_name == "demo":
        return ModelSpec(
            model_name,
            Resizing(DEMO_N_PX),
            DEMO_DIM,
            file_sha256(str(DEMO_WEIGHTS)),
            checkpoint=str(DEMO_WEIGHTS),
            activation="quickgelu",
            license="MIT",
        )
    raise UsageError(
        f"There is no model {model_name!r}; model_name is one of "
        f"{', '.join(MODEL_NAMES)}, or begins with {', '.join(FAMILIES)} "
        "(`rayclip models` lists them)."
    )


def preflight(spec: ModelSpec) -> None:
    """Check that the weights of one of OpenAI's models are cached, or can be downloaded.

    Raises:
        WeightsUnavailable: neither is the case.
    """
    if spec.checkpoint is None:
        check_official_available(spec.model_name, spec.weights_sha256, spec.source)


def load(spec: ModelSpec, device: str, precision: str) -> Network:
    """Load the model; raises what :func:`load_module` raises."""
    network = as_network(load_module(spec, device, precision))
    if isinstance(spec.source, Architecture) and spec.source.note:
        network = replace(network, notes=(spec.source.note,))
    return network


def load_module(spec: ModelSpec, device: str, precision: str) -> Any:
    """Load OpenAI's ``CLIP`` module.

    Raises:
        UsageError: its checkpoint is missing here or has changed.
        WeightsUnavailable: official weights cannot be downloaded.
    """
    if spec.checkpoint is None:
        checkpoint = official_checkpoint(spec.model_name, spec.weights_sha256, spec.source)
    else:
        checkpoint = spec.checkpoint
        refuse_changed(checkpoint, spec.weights_sha256)
    model = load_model(checkpoint, device, precision)
    if isinstance(spec.source, Architecture):
        adapt(model, spec.source)
    set_precision(model, precision)
    return model


def as_network(model: Any) -> Network:
    """Return the network of OpenAI's ``CLIP`` module, in eval mode."""
    device, context_length = next(model.parameters()).device, int(model.context_length)

    def encode_text(texts: Sequence[str]) -> torch.Tensor:
        import torch

        tokens = torch.cat([_tokenize(text, context_length) for text in texts])
        features: torch.Tensor = model.encode_text(tokens.to(device))
        return features

    return Network(
        encode_image=model.encode_image,
        encode_text=encode_text,
        resizing=Resizing(int(model.visual.input_resolution)),
        dim=int(model.text_projection.shape[1]),
        mean=MEAN,
        std=STD,
        frame_bytes=peak_bytes_per_frame(model.visual),
        device=device,
        context_length=context_length,
        logit_scale=float(model.logit_scale.detach().exp()),
    )


def _describe_custom(custom: CustomWeights) -> ModelSpec:
    """Read what a user's checkpoint is, and what is beside it.

    Raises:
        UsageError: it cannot be read, or is not a CLIP model.
    """
    weights, options = custom.checkpoint or DEFAULT_CUSTOM_WEIGHTS, custom.storage_options
    if "://" in weights:
        checkpoint = fetch_checkpoint(weights, options)
    else:
        weights = checkpoint = os.path.abspath(os.path.expanduser(weights))
        if not os.path.isfile(checkpoint):
            raise UsageError(
                f"The checkpoint {checkpoint} of model_name custom does not exist: name it with "
                "weights."
            )
    shape = clip_shape(checkpoint)
    architecture = find_architecture(shape, weights, custom.activation, options)
    return ModelSpec(
        "custom",
        Resizing(shape.n_px),
        shape.dim,
        file_sha256(checkpoint),
        checkpoint=checkpoint,
        activation=architecture.activation,
        source=architecture,
    )


def _tokenize(text: str, context_length: int) -> Any:
    try:
        return openai_clip().tokenize(text, context_length)
    except RuntimeError:  # clip raises it only for long texts
        raise UsageError(
            f"The text {text!r} is too long: shorten it to {context_length} tokens."
        ) from None
