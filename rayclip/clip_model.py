"""A loaded CLIP: image and text encoders, in forward passes of one fixed shape."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayclip.checkpoint import openai_clip, sha256_of, without_warnings
from rayclip.errors import UsageError
from rayclip.models import ModelSpec, describe
from rayclip.weights import official_checkpoint

MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI CLIP's normalisation, RGB
STD = (0.26862954, 0.26130258, 0.27577711)
CPU_BATCH_SIZE = 16
CUDA_BATCH_SIZE = 256
TEXTS_AT_ONCE = 64


class ClipModel:
    """A CLIP on a device.

    Every forward pass has the same shape, and on a CPU its own thread, so that the features of a
    frame do not depend on its neighbours, on its place among them or on the number of threads.
    (With several threads in one pass, each takes a part of a tensor, and the elements at the ends
    of the parts are computed by other instructions, which round differently.)

    Attributes:
        n_px: side of the square input in pixels.
        dim: features per frame.
        context_length: tokens of a text, its beginning and end included.
        logit_scale: factor of the cosines between frames and texts, exponentiated.
        batch_size: frames per forward pass.
        passes_at_once: how many forward passes can be of use at the same time.
        device: where it is, e.g. ``cuda:0``.
    """

    def __init__(self, model: Any, batch_size: int, threads: int | None = None) -> None:
        """Wrap a model that OpenAI's loader made.

        Args:
            model: OpenAI's ``CLIP`` module, in eval mode.
            batch_size: frames per forward pass.
            threads: CPU threads for it, each for a pass of its own; None takes all.
        """
        import torch

        self.n_px = int(model.visual.input_resolution)
        self.dim = int(model.text_projection.shape[1])
        self.context_length = int(model.context_length)
        self.batch_size = batch_size
        self.logit_scale = float(model.logit_scale.detach().exp())
        self._model = model
        self._device = next(model.parameters()).device
        self.device = str(self._device)
        on_cpu = self._device.type == "cpu"
        self.passes_at_once = (threads or os.cpu_count() or 1) if on_cpu else 1
        self._mean = torch.tensor(MEAN, device=self._device).view(1, 3, 1, 1)
        self._std = torch.tensor(STD, device=self._device).view(1, 3, 1, 1)
        self._passes = ThreadPoolExecutor(
            self.passes_at_once,
            thread_name_prefix="forward",
            initializer=_one_thread if on_cpu else None,
        )

    def encode_image(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features as CLIP's image encoder gives them, not normalised.

        Args:
            images: uint8 ``[n, n_px, n_px, 3]``, RGB, resized and cropped; n is at least 1.

        Returns:
            float32 ``[n, dim]``.

        Raises:
            ValueError: the array is of another type or shape.
        """
        square = (self.n_px, self.n_px, 3)
        if images.dtype != np.uint8 or images.shape[1:] != square or not len(images):
            raise ValueError(
                f"images must be uint8 [n, {self.n_px}, {self.n_px}, 3] with n >= 1, "
                f"not {images.dtype} {list(images.shape)}"
            )
        starts = range(0, len(images), self.batch_size)
        batches = [images[start : start + self.batch_size] for start in starts]
        return np.concatenate(list(self._passes.map(self._forward, batches)))

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Features as CLIP's text encoder gives them, not normalised.

        Args:
            texts: at least one; each must fit the model's context.

        Returns:
            float32 ``[n, dim]``.

        Raises:
            UsageError: a text is too long; the sentence names it.
            ValueError: there is no text, or it is not in a list.
        """
        import torch

        if isinstance(texts, str) or not len(texts):
            raise ValueError(f"texts must be a list of at least one text, not {texts!r}")
        tokens = torch.cat([self._tokens(text) for text in texts])
        with torch.inference_mode():
            features = [
                self._model.encode_text(some.to(self._device)).float().cpu()
                for some in tokens.split(TEXTS_AT_ONCE)
            ]
        return np.asarray(torch.cat(features).numpy(), np.float32)

    def _tokens(self, text: str) -> Any:
        try:
            return openai_clip().tokenize(text, self.context_length)
        except RuntimeError:  # clip's only one
            raise UsageError(
                f"The text {text!r} is too long: the model reads {self.context_length} tokens."
            ) from None

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
        model_name: a name of ``clip.available_models()``, ``custom`` or ``demo``. Official
            weights are downloaded on first use.
        weights: the checkpoint of ``custom``: a TorchScript archive or a state dict.
        device: ``cpu``, ``cuda`` or ``cuda:N``; None takes the first GPU, or the CPU without one.
        batch_size: frames per forward pass; None lets the device decide.

    Raises:
        UsageError: there is no such model or device, or its checkpoint is none of CLIP's.
        WeightsUnavailable: official weights cannot be downloaded.
    """
    import torch

    if weights is not None and model_name != "custom":
        raise UsageError(f"weights belong to model_name custom, but model_name is {model_name}.")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}.")
    if device not in (None, "cpu"):
        gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        if device not in (["cuda", *gpus] if gpus else []):
            there = ", ".join(["cpu", *gpus])
            raise UsageError(f"There is no device {device!r} here; there is: {there}.")
    return load_spec(describe(model_name, weights), device, batch_size)


def load_spec(
    spec: ModelSpec, device: str | None, batch_size: int | None, threads: int | None = None
) -> ClipModel:
    """:func:`load_clip` for a model that was already found.

    Raises:
        UsageError: its checkpoint is not the file that was found.
        WeightsUnavailable: official weights cannot be downloaded.
    """
    import torch

    clip = openai_clip()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if spec.checkpoint is None:
        checkpoint = official_checkpoint(spec.model_name, spec.weights_sha256, spec.mirror)
    else:
        checkpoint = spec.checkpoint
        there = os.path.isfile(checkpoint)
        if not there or sha256_of(checkpoint) != spec.weights_sha256:
            raise UsageError(f"{checkpoint} is another file here, or it was changed.")
    with without_warnings():
        model, _ = clip.load(checkpoint, device=device)
    return ClipModel(model, batch_size or default_batch_size(device), threads)


def default_batch_size(device: str) -> int:
    """Frames per forward pass where the user does not say."""
    return CPU_BATCH_SIZE if device == "cpu" else CUDA_BATCH_SIZE


def _one_thread() -> None:
    """Let the calling thread compute alone. Torch keeps the number for each thread, but also as
    the default of threads to come, which another thread puts back: it is the user's."""
    import torch

    default = torch.get_num_threads()
    torch.set_num_threads(1)
    other = threading.Thread(target=torch.set_num_threads, args=(default,))
    other.start()
    other.join()
