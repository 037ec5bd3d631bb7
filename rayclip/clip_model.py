"""CLIP models: what a name means, how it is loaded, and forward passes of one fixed shape."""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rayclip.errors import UsageError

if TYPE_CHECKING:
    import torch

DEMO_WEIGHTS = Path(__file__).parent / "assets" / "demo.pt"
DEFAULT_CUSTOM_WEIGHTS = "models/clip/checkpoints/CLIP-custom.pth"  # the reference's place
MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI CLIP's normalisation, RGB
STD = (0.26862954, 0.26130258, 0.27577711)
CPU_BATCH_SIZE = 16
CUDA_BATCH_SIZE = 256


class PublishedModel(NamedTuple):
    """What is known of a model without its checkpoint.

    Attributes:
        n_px: side of its square input in pixels.
        dim: features per frame.
        weights_sha256: of the checkpoint.
    """

    n_px: int
    dim: int
    weights_sha256: str


# as OpenAI published them; the checksums are part of their addresses
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
    """A model that was found, before it is loaded.

    Attributes:
        model_name: as the user wrote it.
        n_px: side of its square input in pixels.
        dim: features per frame.
        weights_sha256: of the checkpoint, in hexadecimal.
        checkpoint: the local file; None for official weights, which are cached per node.
    """

    model_name: str
    n_px: int
    dim: int
    weights_sha256: str
    checkpoint: str | None


def describe(model_name: str, weights: str | None = None) -> ModelSpec:
    """Find a model and what it takes and gives.

    Args:
        model_name: one of :data:`MODEL_NAMES`.
        weights: the checkpoint of ``custom``, a local path.

    Raises:
        UsageError: there is no such model, or its checkpoint is none of CLIP's.
    """
    if model_name in OFFICIAL_MODELS:
        n_px, dim, sha256 = OFFICIAL_MODELS[model_name]
        return ModelSpec(model_name, n_px, dim, sha256, None)
    if model_name == "demo":
        checkpoint = str(DEMO_WEIGHTS)
        n_px, dim = DEMO_N_PX, DEMO_DIM
    elif model_name == "custom":
        checkpoint = os.path.abspath(weights or DEFAULT_CUSTOM_WEIGHTS)
        if not os.path.isfile(checkpoint):
            raise UsageError(f"The weights {checkpoint} of model_name custom do not exist.")
        n_px, dim = _shape_of(_state_dict(checkpoint), checkpoint)
    else:
        names = ", ".join(MODEL_NAMES)
        raise UsageError(f"There is no model {model_name!r}; model_name is one of: {names}.")
    return ModelSpec(model_name, n_px, dim, _sha256(checkpoint), checkpoint)


class ClipModel:
    """A CLIP on a device. Every forward pass has the same shape, so that the features of a frame
    do not depend on its neighbours."""

    def __init__(self, model: Any, n_px: int, dim: int, batch_size: int) -> None:
        import torch

        self.n_px = n_px
        self.dim = dim
        self.batch_size = batch_size
        self.context_length = int(model.context_length)
        self._model = model
        self._device = next(model.parameters()).device
        self._mean = torch.tensor(MEAN, device=self._device).view(1, 3, 1, 1)
        self._std = torch.tensor(STD, device=self._device).view(1, 3, 1, 1)

    @property
    def device(self) -> str:
        return str(self._device)

    def encode_image(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features as CLIP's image encoder gives them, not normalised.

        Args:
            images: uint8 ``[n, n_px, n_px, 3]``, RGB, resized and cropped; n is at least 1.

        Returns:
            float32 ``[n, dim]``.
        """
        starts = range(0, len(images), self.batch_size)
        return np.concatenate([self._forward(images[i : i + self.batch_size]) for i in starts])

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Features as CLIP's text encoder gives them, not normalised.

        Args:
            texts: at least one; each must fit the model's context.

        Returns:
            float32 ``[n, dim]``.

        Raises:
            UsageError: a text is too long, named in the sentence.
        """
        import torch

        tokenize = _openai_clip().tokenize
        try:
            tokens = torch.cat([tokenize(text, self.context_length) for text in texts])
        except RuntimeError as error:
            raise UsageError(
                f"{error}: the model reads {self.context_length} tokens; shorten the text."
            ) from None
        with torch.inference_mode():
            features = self._model.encode_text(tokens.to(self._device)).float().cpu()
        return np.asarray(features.numpy(), np.float32)

    def _forward(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        padded = np.zeros((self.batch_size, self.n_px, self.n_px, 3), np.uint8)
        padded[: len(images)] = images
        with torch.inference_mode():
            pixels = torch.from_numpy(padded).to(self._device).permute(0, 3, 1, 2).float()
            pixels = pixels.div_(255).sub_(self._mean).div_(self._std)
            features = self._model.encode_image(pixels)[: len(images)].float().cpu()
        return np.asarray(features.numpy(), np.float32)


def load_clip(
    model_name: str,
    weights: str | None = None,
    device: str | None = None,
    batch_size: int | None = None,
) -> ClipModel:
    """Load a model with OpenAI's own loader: fp16 weights on CUDA, fp32 on the CPU.

    Args:
        model_name: one of :data:`MODEL_NAMES`. Official weights are downloaded on first use.
        weights: the checkpoint of ``custom``: a TorchScript archive or a state dict.
        device: ``cpu``, ``cuda`` or ``cuda:N``; None takes the first GPU, or the CPU without one.
        batch_size: frames per forward pass; None lets the device decide.

    Raises:
        UsageError: there is no such model, or its checkpoint is none of CLIP's.
    """
    return load_spec(describe(model_name, weights), device, batch_size)


def default_batch_size(device: str) -> int:
    """Frames per forward pass where the user does not say."""
    return CPU_BATCH_SIZE if device == "cpu" else CUDA_BATCH_SIZE


def load_spec(spec: ModelSpec, device: str | None, batch_size: int | None) -> ClipModel:
    """:func:`load_clip` for a model that was already found."""
    import torch

    clip = _openai_clip()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    batch_size = batch_size or default_batch_size(device)
    with _without_warnings():
        if spec.checkpoint is None:
            with _download_lock():
                model, _ = clip.load(spec.model_name, device=device)
        else:
            model, _ = clip.load(spec.checkpoint, device=device)
    return ClipModel(model, spec.n_px, spec.dim, batch_size)


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _openai_clip() -> Any:
    with _without_warnings():
        import clip
    return clip


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep the deprecations inside clip, pkg_resources and torch.jit off the user's terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _download_lock() -> Iterator[None]:
    """clip's download is not atomic: the processes of a node take turns."""
    import filelock

    cache = Path.home() / ".cache" / "clip"
    cache.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(cache / "rayclip.lock"):
        yield


def _state_dict(checkpoint: str) -> Mapping[str, torch.Tensor]:
    """The tensors of a TorchScript archive or a state dict; code in them is never called."""
    import torch

    try:
        with _without_warnings():
            if _is_torchscript(checkpoint):
                archive = torch.jit.load(checkpoint, map_location="cpu")
                return dict(archive.state_dict())
            tensors = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"{checkpoint} is neither a TorchScript archive nor a state dict: {reason}"
        ) from error
    if not isinstance(tensors, Mapping):
        kind = type(tensors).__name__
        raise UsageError(f"{checkpoint} holds a {kind}, not the state dict of a CLIP model.")
    return tensors


def _is_torchscript(checkpoint: str) -> bool:
    if not zipfile.is_zipfile(checkpoint):
        return False
    with zipfile.ZipFile(checkpoint) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _shape_of(tensors: Mapping[str, torch.Tensor], checkpoint: str) -> tuple[int, int]:
    """Input resolution and feature dimension, as OpenAI's ``build_model`` reads them."""
    try:
        dim = int(tensors["text_projection"].shape[1])
        if "visual.proj" in tensors:
            patch = int(tensors["visual.conv1.weight"].shape[-1])
            grid = round((tensors["visual.positional_embedding"].shape[0] - 1) ** 0.5)
            return patch * grid, dim
        grid = round((tensors["visual.attnpool.positional_embedding"].shape[0] - 1) ** 0.5)
        return 32 * grid, dim
    except (KeyError, IndexError, AttributeError) as error:
        raise UsageError(f"{checkpoint} is no CLIP model: it has no usable {error}.") from error
