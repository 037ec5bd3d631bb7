"""A loaded model: image and text encoders that run forward passes of one fixed shape."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rayclip.errors import UsageError
from rayclip.model.load_stage import stage
from rayclip.model.models import Network, Probability
from rayclip.model.precision import call_compiled, compile_function, largest_that_fits
from rayclip.model.preprocess import resize

if TYPE_CHECKING:
    import torch
    from PIL import Image

CUDA_CONCURRENT_PASSES = 2  # frames are copied to the device during the pass before theirs
TEXT_BATCH_SIZE = 64


class LoadedModel:
    """A model on a device; ``rayclip.ClipModel`` is the same class.

    Every forward pass has the same shape, and on CPUs runs on a single thread. So the features of a
    frame do not depend on the other frames of its batch, on its position in it or on the number of
    threads. (Several threads would split each tensor, and the elements at the ends of the parts are
    computed by other instructions, which round differently.) On CUDA each pass has its own stream
    and pinned buffer.

    Attributes:
        n_px: side of the square input in pixels.
        dim: features per frame.
        context_length: tokens of a text, including special ones; None without a text encoder.
        logit_scale: factor for cosines between frames and texts, already exponentiated.
        logit_bias: added to the scaled cosines.
        probability: what makes probabilities of logits: ``softmax`` over all texts, or ``sigmoid``
            of each.
        batch_size: frames per forward pass.
        passes_at_once: how many forward passes run concurrently.
        device: the device that it is on, e.g. ``cuda:0``.
        notes: decisions made while loading, one line each.
    """

    def __init__(
        self,
        network: Network,
        batch_size: int,
        threads: int | None = None,
        compile: bool = False,  # noqa: A002  # the option's name
    ) -> None:
        """Prepare a network for batches of one size.

        Args:
            network: as a family loads it.
            batch_size: frames per forward pass.
            threads: CPU threads, each of which runs its own passes; None takes all cores.
            compile: compile the forward pass now, which takes up to minutes.

        Raises:
            UsageError: it cannot be compiled here.
        """
        import torch

        self.n_px = network.resizing.n_px
        self.dim = network.dim
        self.context_length = network.context_length
        self.logit_scale = network.logit_scale
        self.logit_bias = network.logit_bias
        self.probability: Probability = network.probability
        self.batch_size = batch_size
        self.notes: list[str] = []
        self._network = network
        self._device = network.device
        self.device = str(self._device)
        on_cpu = self._device.type == "cpu"
        threads = threads or os.cpu_count() or 1
        self.passes_at_once = threads if on_cpu else CUDA_CONCURRENT_PASSES
        self._mean = torch.tensor(network.mean, device=self._device).view(1, 3, 1, 1)
        self._std = torch.tensor(network.std, device=self._device).view(1, 3, 1, 1)
        if not on_cpu:
            torch.cuda.synchronize(
                self._device
            )  # other streams do not wait for work started on this one
        self._thread = threading.local()
        self._passes = ThreadPoolExecutor(
            self.passes_at_once,
            thread_name_prefix="forward",
            initializer=_use_one_thread if on_cpu else partial(_use_own_stream, self._device),
        )
        self._features = (
            compile_function(self._compute_features, self._device)
            if compile
            else self._compute_features
        )
        if compile:  # on a pass thread, since the code is specialised for its settings
            black = [np.zeros((self.n_px, self.n_px, 3), np.uint8)]

            def compile_for(size: int) -> None:
                self._passes.submit(call_compiled, partial(self._forward, size, black)).result()

            with stage("Compiling the model"):
                self.batch_size, self.notes = largest_that_fits(compile_for, batch_size)

    def encode_image(
        self, images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
    ) -> NDArray[np.float32]:
        """Return the image encoder's features, not normalised.

        Args:
            images: uint8 ``[n, n_px, n_px, 3]``, or a list of n ``[n_px, n_px, 3]``: RGB, resized
                and cropped; n is at least 1.

        Returns:
            float32 ``[n, dim]``.

        Raises:
            ValueError: an array has another dtype or shape.
        """
        kinds = {(image.dtype, image.shape) for image in images}
        if kinds != {(np.dtype(np.uint8), (self.n_px, self.n_px, 3))}:
            found = " and ".join(sorted(f"{dtype} {list(shape)}" for dtype, shape in kinds))
            raise ValueError(
                f"images must be n >= 1 arrays of uint8 [{self.n_px}, {self.n_px}, 3], "
                f"not {found or 'none'}"
            )
        size = self.batch_size  # read once, since a batcher may lower it during the call
        frames = list(images)
        batches = [frames[start : start + size] for start in range(0, len(frames), size)]
        return np.concatenate(list(self._passes.map(partial(self._forward, size), batches)))

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the text encoder's features, not normalised.

        Args:
            texts: at least one.

        Returns:
            float32 ``[n, dim]``.

        Raises:
            UsageError: the model has no text encoder, or a text is too long for one of OpenAI's
                models; the message names it. Other families shorten it.
            ValueError: there is no text, or it is not in a list.
        """
        import torch

        if self._network.encode_text is None:
            raise UsageError("This model has no text encoder: choose one that has, or no texts.")
        if isinstance(texts, str) or not len(texts):
            raise ValueError(f"texts must be a list of at least one text, not {texts!r}")
        with torch.inference_mode():
            features = [
                self._network.encode_text(texts[start : start + TEXT_BATCH_SIZE]).float().cpu()
                for start in range(0, len(texts), TEXT_BATCH_SIZE)
            ]
        return np.asarray(torch.cat(features).numpy(), np.float32)

    def preprocess(self, image: Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize a picture to the model's input, as frames of videos are.

        Args:
            image: a Pillow image of any mode, or uint8 RGB ``[height, width, 3]``.

        Returns:
            uint8 ``[n_px, n_px, 3]``, RGB.
        """
        from PIL import Image

        if isinstance(image, Image.Image):
            image = np.asarray(image.convert("RGB"))
        return resize(image, self._network.resizing)

    @property
    def peak_bytes(self) -> int:
        """Estimate the peak memory of all concurrent passes, in bytes, without the weights."""
        return self.passes_at_once * self.batch_size * self._network.frame_bytes

    def black_frames(self, count: int) -> NDArray[np.uint8]:
        """Return frames to try the model with, uint8 ``[count, n_px, n_px, 3]``."""
        return np.zeros((count, self.n_px, self.n_px, 3), np.uint8)

    def close(self) -> None:
        """Stop its threads; it can encode no more images."""
        self._passes.shutdown()

    def _forward(self, size: int, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Run one pass, on a pass thread: at most ``size`` images to float32 features."""
        import torch

        with torch.inference_mode():
            frames = self._staging(size)
            np.stack(
                images, out=frames.numpy()[: len(images)]
            )  # copied directly from the object store
            frames.numpy()[len(images) :] = 0
            features = self._features(frames.to(self._device, non_blocking=True))
            # waits for this thread's stream, so the buffer can be reused afterwards
            features = features[: len(images)].cpu()
        return np.asarray(features.numpy(), np.float32)

    def _staging(self, size: int) -> Any:
        """Return this thread's uint8 buffer for a pass, pinned for copies to a GPU."""
        import torch

        shape = (size, self.n_px, self.n_px, 3)
        buffer = getattr(self._thread, "staging", None)
        if buffer is None or buffer.shape != shape:
            pinned = self._device.type != "cpu"
            buffer = self._thread.staging = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        return buffer

    def _compute_features(self, frames: torch.Tensor) -> torch.Tensor:
        """Encode uint8 ``[batch_size, n_px, n_px, 3]`` to float32 ``[batch_size, dim]``.

        Permuted to ``[n, 3, n_px, n_px]``, the pixels are in torch's channels_last layout, in which
        convolutions are faster, and which they keep.
        """
        pixels = frames.permute(0, 3, 1, 2).float()
        pixels = pixels.div_(255).sub_(self._mean).div_(self._std)
        return self._network.encode_image(pixels).float()


ClipModel = LoadedModel


def _use_one_thread() -> None:
    """Limit the calling thread to one intra-op thread.

    Torch keeps this number per thread, but also makes it the default of new threads. Another thread
    restores that default, which belongs to the user.
    """
    import torch

    default = torch.get_num_threads()
    torch.set_num_threads(1)
    other = threading.Thread(target=torch.set_num_threads, args=(default,))
    other.start()
    other.join()


def _use_own_stream(device: torch.device) -> None:
    """Give the calling thread its own CUDA stream."""
    import torch

    torch.cuda.set_stream(torch.cuda.Stream(device))
