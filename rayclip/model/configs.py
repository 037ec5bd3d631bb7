"""What Hugging Face's and open_clip's configurations say of a CLIP, and its tensors do not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from rayclip.model_options import Activation

MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI CLIP's normalisation, RGB
STD = (0.26862954, 0.26130258, 0.27577711)
ACTIVATIONS: dict[str, Activation] = {"quick_gelu": "quickgelu", "gelu": "gelu"}
LAYER_NORM_EPS = 1e-5

# What open_clip may say of a model that OpenAI's code builds. Wrong sizes show in tensors.
OPEN_CLIP_KEYS = {
    "model_cfg": {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text"},
    "vision_cfg": {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"},
    "text_cfg": {"context_length", "vocab_size", "layers", "width", "heads", "mlp_ratio"},
    "preprocess_cfg": {"mean", "std"},
}
OPEN_CLIP_DEFAULTS = {
    "init_logit_scale": None,  # and what matters only in training
    "patch_dropout": None,
    "pool_type": ("tok", "argmax"),
    "proj_type": ("linear",),
    "pos_embed_type": ("learnable",),
    "interpolation": ("bicubic",),
    "resize_mode": ("shortest",),
}


class Config(NamedTuple):
    """What a configuration says.

    Attributes:
        n_px: side of the square input in pixels.
        dim: features per frame.
        activation: of the MLPs.
        head_size: width of an attention head of a vision transformer; None of another encoder.
        text_head_size: the same of the text encoder.
    """

    n_px: int
    dim: int
    activation: Activation
    head_size: int | None
    text_head_size: int


class Unsupported(Exception):
    """OpenAI's code cannot build such a model; the message is a clause that says why."""


def read_hugging_face(config: Mapping[str, Any]) -> Config:
    """Read the ``config.json`` of a ``CLIPModel``; what it leaves out has transformers' defaults.

    Raises:
        Unsupported: it is another model's.
        Exception: it is no such configuration.
    """
    kind = config.get("model_type", "clip")
    if kind != "clip":
        raise Unsupported(f"model_type is {kind}, not clip")
    # as transformers does, for configurations of old
    vision = {**(config.get("vision_config") or {}), **(config.get("vision_config_dict") or {})}
    text = {**(config.get("text_config") or {}), **(config.get("text_config_dict") or {})}
    names = {part.get("hidden_act", "quick_gelu") for part in (vision, text)}
    if len(names) > 1 or not names <= ACTIVATIONS.keys():
        raise Unsupported(f"hidden_act is {' and '.join(sorted(map(str, names)))}")
    for part in (vision, text):
        if part.get("layer_norm_eps", LAYER_NORM_EPS) != LAYER_NORM_EPS:
            raise Unsupported(f"layer_norm_eps is {part['layer_norm_eps']}")
    return Config(
        n_px=_side(vision.get("image_size", 224)),
        dim=int(config.get("projection_dim", 512)),
        activation=ACTIVATIONS[names.pop()],
        head_size=_quotient(vision.get("hidden_size", 768), vision.get("num_attention_heads", 12)),
        text_head_size=_quotient(text.get("hidden_size", 512), text.get("num_attention_heads", 8)),
    )


def read_open_clip(config: Mapping[str, Any]) -> Config:
    """Read an ``open_clip_config.json``; what it leaves out has open_clip's defaults.

    Raises:
        Unsupported: it is of a model that differs from OpenAI's.
        Exception: it is no such configuration.
    """
    model, preprocess = config["model_cfg"], config.get("preprocess_cfg") or {}
    vision, text = model["vision_cfg"], model["text_cfg"]
    for name, part in (
        ("model_cfg", model),
        ("vision_cfg", vision),
        ("text_cfg", text),
        ("preprocess_cfg", preprocess),
    ):
        _refuse_unknown(part, OPEN_CLIP_KEYS[name])
    for name, expected in (("mean", MEAN), ("std", STD)):
        given = preprocess.get(name) or expected
        if not all(map(math.isclose, given, expected)):
            raise Unsupported(f"{name} is {given}")
    is_resnet = isinstance(vision.get("layers"), list)
    return Config(
        n_px=_side(vision.get("image_size", 224)),
        dim=int(model["embed_dim"]),
        activation="quickgelu" if model.get("quick_gelu") else "gelu",
        head_size=None if is_resnet else int(vision.get("head_width", 64)),
        text_head_size=_quotient(text.get("width", 512), text.get("heads", 8)),
    )


def _refuse_unknown(part: Mapping[str, Any], known: set[str]) -> None:
    for key, value in part.items():
        if value and key not in known:
            if key not in OPEN_CLIP_DEFAULTS:
                raise Unsupported(f"{key} is {value}")
            defaults = OPEN_CLIP_DEFAULTS[key]
            if defaults is not None and value not in defaults:
                raise Unsupported(f"{key} is {value}")


def _side(size: Any) -> int:
    """Return the side of a square input, given as a number or as height and width."""
    sides = {int(side) for side in (size if isinstance(size, list) else [size])}
    if len(sides) != 1:
        raise Unsupported(f"image_size is {size}")
    return sides.pop()


def _quotient(width: Any, heads: Any) -> int:
    if width % heads:
        raise Unsupported(f"{heads} heads do not divide {width}")
    return int(width // heads)
