"""Model names, and the input and output sizes of each, known before it is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rayclip.errors import UsageError
from rayclip.model.checkpoint import clip_shape, file_sha256
from rayclip.model.weights import MIRROR_VARIABLE, fetch_checkpoint

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


@dataclass(frozen=True)
class ModelSpec:
    """A model that exists, before it is loaded.

    Attributes:
        model_name: as given by the user.
        n_px: side of its square input in pixels.
        dim: features per frame.
        weights_sha256: SHA-256 of the checkpoint, in hexadecimal.
        checkpoint: the local file; None for official weights, which are cached per node.
        mirror: base URL for official weights; None for OpenAI's own.
    """

    model_name: str
    n_px: int
    dim: int
    weights_sha256: str
    checkpoint: str | None
    mirror: str | None = None


def describe(
    model_name: str,
    weights: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> ModelSpec:
    """Look up a model, and read its sizes from its checkpoint if it is a custom one.

    Args:
        model_name: one of :data:`MODEL_NAMES`.
        weights: the checkpoint of ``custom``, a local path or an fsspec URL.
        storage_options: passed to fsspec for a URL.

    Raises:
        UsageError: there is no such model, or its checkpoint is not a CLIP model.
    """
    if model_name in OFFICIAL_MODELS:
        n_px, dim, sha256 = OFFICIAL_MODELS[model_name]
        mirror = os.environ.get(MIRROR_VARIABLE)
        if mirror is not None and "://" not in mirror:
            mirror = os.path.abspath(mirror)  # workers have other working directories
        return ModelSpec(model_name, n_px, dim, sha256, None, mirror)
    if model_name == "demo":
        checkpoint = str(DEMO_WEIGHTS)
        n_px, dim = DEMO_N_PX, DEMO_DIM
    elif model_name == "custom":
        if weights is not None and "://" in weights:
            checkpoint = fetch_checkpoint(weights, storage_options or {})
        else:
            checkpoint = os.path.abspath(os.path.expanduser(weights or DEFAULT_CUSTOM_WEIGHTS))
        if not os.path.isfile(checkpoint):
            raise UsageError(
                f"The checkpoint {checkpoint} of model_name custom does not exist: name it with "
                "weights."
            )
        n_px, dim = clip_shape(checkpoint)
    else:
        names = ", ".join(MODEL_NAMES)
        raise UsageError(f"There is no model {model_name!r}; model_name is one of: {names}.")
    return ModelSpec(model_name, n_px, dim, file_sha256(checkpoint), checkpoint)
