"""What a CLIP's tensors do not say, but OpenAI's code has to know: activation and heads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rayclip.errors import UsageError
from rayclip.io.remote import open_remote
from rayclip.io.storage_errors import ErrorKind, classify_error, reason
from rayclip.model.checkpoint import ClipShape
from rayclip.model.configs import Config, Unsupported, read_hugging_face, read_open_clip
from rayclip.model_options import Activation

HEAD_SIZES = {1280: 80}  # by width: ViT-H/14 is the one published CLIP whose heads are not 64 wide
MAX_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True)
class Architecture:
    """What makes a CLIP's module differ from the one that OpenAI's code builds.

    Attributes:
        activation: of the MLPs.
        head_size: width of an image encoder's attention heads; None keeps those that were built.
        text_head_size: the same of the text encoder.
        note: a line for the user about where the activation is from; empty if they chose it.
    """

    activation: Activation = "quickgelu"
    head_size: int | None = None
    text_head_size: int | None = None
    note: str = ""


def find_architecture(
    shape: ClipShape,
    weights: str,
    activation: Activation | None,
    storage_options: Mapping[str, Any],
) -> Architecture:
    """Find out what tensors do not say.

    Args:
        shape: of the checkpoint.
        weights: the checkpoint, a local path or an fsspec URL. Hugging Face's and open_clip's
            configurations are read if they are in the same folder.
        activation: chosen by the user; None takes the configuration's, or OpenAI's.
        storage_options: passed to fsspec for a URL.

    Raises:
        UsageError: the configuration cannot be read, or is of another model.
    """
    is_hugging_face = shape.layout == "hugging_face"
    name = "config.json" if is_hugging_face else "open_clip_config.json"
    path = _beside(weights, name)
    config = _read_config(
        path, storage_options, read_hugging_face if is_hugging_face else read_open_clip
    )
    if config is None:
        note = (
            "activation: quickgelu, as in OpenAI's models, since the weights do not say; those of "
            "open_clip and LAION often need --activation gelu"
        )
        head_size = HEAD_SIZES.get(shape.width)
        return Architecture(activation or "quickgelu", head_size, None, "" if activation else note)
    if (config.n_px, config.dim) != (shape.n_px, shape.dim):
        raise UsageError(
            f"{path} is not the configuration of {weights}: it is of {config.n_px} pixels and "
            f"{config.dim} features, and the weights of {shape.n_px} and {shape.dim}; remove it or "
            "correct it."
        )
    note = "" if activation else f"activation: {config.activation}, from {name}"
    return Architecture(
        activation or config.activation, config.head_size, config.text_head_size, note
    )


def adapt(model: Any, architecture: Architecture) -> None:
    """Change OpenAI's ``CLIP`` module, in place, to compute what another architecture does."""
    from torch import nn

    encoders = [(model.transformer, architecture.text_head_size)]
    if hasattr(model.visual, "transformer"):
        encoders.append((model.visual.transformer, architecture.head_size))
    for transformer, head_size in encoders:
        for block in transformer.resblocks:
            if architecture.activation == "gelu":
                block.mlp.gelu = nn.GELU()
            if head_size is not None:
                block.attn.head_dim = head_size
                block.attn.num_heads = block.attn.embed_dim // head_size


def _beside(weights: str, name: str) -> str:
    """Return the path or URL of another file in the same folder.

    In a chained URL, the folder is in the first part with a path: ``simplecache::s3://…``.
    """
    parts = weights.split("::")
    at = next((index for index, part in enumerate(parts) if "/" in part), 0)
    folder, slash, _ = parts[at].partition("?")[0].rpartition("/")
    parts[at] = f"{folder}{slash}{name}"
    return "::".join(parts)


def _read_config(
    path: str,
    storage_options: Mapping[str, Any],
    read: Callable[[Mapping[str, Any]], Config],
) -> Config | None:
    """Read a configuration; None if there is none, or none that may be read.

    Raises:
        UsageError: it cannot be read now, or cannot be used.
    """
    try:
        if "://" in path:
            with open_remote(path, storage_options) as file:
                content = file.read(MAX_CONFIG_BYTES)
        else:
            with open(path, "rb") as file:
                content = file.read(MAX_CONFIG_BYTES)
    except Exception as error:  # each storage has exceptions of its own
        if isinstance(error, FileNotFoundError) or classify_error(error) is ErrorKind.DENIED:
            return None
        raise UsageError(f"{path} cannot be read ({reason(error)}): try again.") from error
    try:
        return read(json.loads(content))
    except Unsupported as error:
        raise UsageError(
            f"{path} describes a model that custom cannot load, since {error}: if open_clip can, "
            "load its folder with model_name local-dir:FOLDER."
        ) from None
    except Exception:
        raise UsageError(
            f"{path} is not the configuration of a CLIP: remove it or correct it."
        ) from None
