"""The names that libraries give to the tensors of a CLIP, converted to OpenAI's by tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Layout = Literal["openai", "open_clip", "hugging_face"]
"""The class that saved it: OpenAI's or open_clip's ``CLIP``, open_clip's ``CustomTextCLIP``, or
transformers' ``CLIPModel``."""

MARKER = "visual.conv1.weight"  # all of OpenAI's models have this tensor, and few others do
TOKENS = "token_embedding.weight"
TEXT_PREFIX = "text."  # of the whole text encoder, in a CustomTextCLIP
HUGGING_FACE_MARKER = "vision_model.embeddings.patch_embedding.weight"
HUGGING_FACE_TOKENS = "text_model.embeddings.token_embedding.weight"
PREFIXES = {  # that training scripts add to names
    "module",
    "model",
    "clip",
    "clip_model",
    "_orig_mod",
}

HUGGING_FACE_PARTS = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.": "visual.conv1.",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.": "visual.ln_pre.",  # their spelling
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
    "vision_model.post_layernorm.": "visual.ln_post.",
    "text_model.embeddings.token_embedding.": "token_embedding.",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.encoder.layers.": "transformer.resblocks.",
    "text_model.final_layer_norm.": "ln_final.",
    ".layer_norm1.": ".ln_1.",
    ".layer_norm2.": ".ln_2.",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
    ".self_attn.out_proj.": ".attn.out_proj.",
    ".self_attn.q_proj.": ".attn.in_proj_",  # OpenAI has queries, keys and values in one tensor
}
HUGGING_FACE_OTHERS = (".k_proj.", ".v_proj.", ".position_ids")  # joined to q_proj, or not weights
HUGGING_FACE_LINEAR = {  # OpenAI has their weights transposed
    "visual_projection.weight": "visual.proj",
    "text_projection.weight": "text_projection",
}

BY_OPEN_CLIP = "; open_clip can load it: try model_name local-dir:FOLDER"
WHOLE = ": save the whole CLIPModel"
# What else a checkpoint may hold, by a part of a tensor's name, and what to do.
OTHER_MODELS = {
    "lora_": ("an adapter (LoRA)", ": merge it into its model first"),
    "visual.trunk.": ("an open_clip model whose image encoder is one of timm's", BY_OPEN_CLIP),
    "text.transformer.embeddings.": ("an open_clip model with another text encoder", BY_OPEN_CLIP),
    "text_decoder.": ("a CoCa model", BY_OPEN_CLIP),
    "vision_model.head.": ("a Hugging Face SigLIP model", ": take the same model from open_clip"),
    "logit_bias": ("a model that was trained with a sigmoid loss", BY_OPEN_CLIP),
}
PARTS_OF_MODELS = {
    "vision_model.": ("a Hugging Face model with OpenAI's image encoder at most", WHOLE),
    "text_model.": ("a Hugging Face model with OpenAI's text encoder at most", WHOLE),
    "encoder.": ("another kind of encoder", ""),
    "blocks.": ("one of timm's vision transformers", ""),
}


class NotAClip(Exception):
    """Tensors are not a CLIP's; the message says what they are, as a clause."""


def to_openai(tensors: Mapping[str, torch.Tensor]) -> tuple[Layout, dict[str, torch.Tensor]]:
    """Return the layout of a CLIP's tensors, and the tensors under OpenAI's names and shapes.

    Args:
        tensors: all of a checkpoint. If the names of the CLIP have a known prefix, it is removed,
            and tensors without it are left out. Names that are not in the tables are kept.

    Raises:
        NotAClip: they are not a CLIP's.
        KeyError: a tensor is missing.
    """
    tensors = _strip_prefix(tensors)
    if _find(OTHER_MODELS, tensors) is None:
        if {HUGGING_FACE_MARKER, HUGGING_FACE_TOKENS} <= tensors.keys():
            return "hugging_face", _from_hugging_face(tensors)
        if {MARKER, TEXT_PREFIX + TOKENS} <= tensors.keys():
            openais = {name.removeprefix(TEXT_PREFIX): tensor for name, tensor in tensors.items()}
            return "open_clip", openais
        if {MARKER, TOKENS} <= tensors.keys():
            return "openai", dict(tensors)
    raise NotAClip(_describe_contents(tensors))


def _strip_prefix(tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """Rename tensors as in a CLIP if exactly one is in there, with a known prefix."""
    prefixes = {
        name.removesuffix(marker)
        for marker in (MARKER, HUGGING_FACE_MARKER)
        for name in tensors
        if name.endswith(marker)
    }
    if len(prefixes) != 1:
        return tensors
    (prefix,) = prefixes
    if prefix and not (prefix.endswith(".") and PREFIXES.issuperset(prefix[:-1].split("."))):
        return tensors
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _from_hugging_face(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Convert a Hugging Face ``CLIPModel``; its buffers ``position_ids`` are left out."""
    import torch

    converted = {}
    for name, tensor in tensors.items():
        if name in HUGGING_FACE_LINEAR:
            converted[HUGGING_FACE_LINEAR[name]] = tensor.T
        elif ".q_proj." in name:
            parts = [tensors[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            converted[_openai_name(name)] = torch.cat(parts)
        elif not any(part in name for part in HUGGING_FACE_OTHERS):
            converted[_openai_name(name)] = tensor
    return converted


def _openai_name(name: str) -> str:
    for theirs, openais in HUGGING_FACE_PARTS.items():
        name = name.replace(theirs, openais)
    return name


def _find(kinds: Mapping[str, tuple[str, str]], tensors: Mapping[str, object]) -> str | None:
    """Return a clause about the first kind of model with such a tensor."""
    for part, (kind, remedy) in kinds.items():
        for name in tensors:
            if part in name:
                return f"it holds {kind} ({name}){remedy}"
    return None


def _describe_contents(tensors: Mapping[str, object]) -> str:
    """Say what a checkpoint that is not a CLIP holds."""
    names = ", ".join(list(tensors)[:3])
    if not names:
        return "it holds no tensors"
    missing = TOKENS if MARKER in tensors else MARKER
    found = _find({**OTHER_MODELS, **PARTS_OF_MODELS}, tensors)
    return found or f"it has no tensor {missing}, but {names}"
