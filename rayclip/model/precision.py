"""Number formats, compilation and batch sizes of forward passes."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from rayclip.errors import UsageError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

CPU_BATCH_SIZE = 16  # measured: at 64, eager passes outgrow the caches and cost more per frame
CUDA_BATCH_SIZES = (16, 256)  # minimum and maximum; larger batches mostly pad the end of short runs
PASS_MEMORY_SHARE = (
    1 / 8
)  # of the device: leaves room for a second pass, the weights and other encoders
MAX_REASON = 200
PIXEL_BYTES = 16  # as uint8, in fp32, normalised, and in the model's format


def set_precision(model: Any, precision: str) -> None:
    """Convert a CLIP model to another number format, in place.

    Converts the tensors that OpenAI's loader keeps in fp16 on CUDA. The others stay in fp32,
    including the normalisation layers, which lose too much in half precision.

    Args:
        model: OpenAI's ``CLIP`` module, from their loader.
        precision: ``auto`` (unchanged), ``fp32``, ``fp16`` or ``bf16``.
    """
    import torch
    from torch import nn

    if precision == "auto":
        return
    model.float()
    if precision == "fp32":
        return
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    for module in model.modules():
        parameters = dict(module.named_parameters(recurse=False))
        if not isinstance(module, nn.Conv2d | nn.Linear | nn.MultiheadAttention):
            names = (
                "text_projection",
                "proj",
            )  # matrices that are direct attributes of their modules
            parameters = {name: parameters[name] for name in names if name in parameters}
        for parameter in parameters.values():
            parameter.data = parameter.data.to(dtype)


def in_precision(
    function: Callable[[torch.Tensor], torch.Tensor], device: torch.device, precision: str
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function with another number format, for models other than OpenAI's.

    Weights stay in fp32 and are converted by torch's autocast, which knows what must not be in half
    precision, whatever the architecture.

    Args:
        function: a forward pass of a model in fp32.
        device: that the model is on.
        precision: ``auto`` (fp16 on CUDA, fp32 on CPUs), ``fp32``, ``fp16`` or ``bf16``.
    """
    import torch

    if precision == "auto":
        precision = "fp32" if device.type == "cpu" else "fp16"
    if precision == "fp32":
        return function
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]

    def call(inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, dtype=dtype):
            return function(inputs)

    return call


CANNOT_COMPILE = (
    "compile needs a C++ compiler (g++, or the one that CXX names), Python's headers and, on GPUs, "
    "Triton, but torch cannot compile here"
)


def compile_function(
    function: Callable[[torch.Tensor], torch.Tensor], device: torch.device
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function compiled; the first call with each shape compiles it for that shape.

    Args:
        function: a forward pass.
        device: that the model is on.

    Raises:
        UsageError: the device is a CPU, and there is no compiler. Torch would say so as well, but
            imports its compiler for ten seconds before.
    """
    import torch

    default = "clang++" if sys.platform == "darwin" else "g++"
    compiler = os.environ.get("CXX", default)  # as torch chooses it
    if device.type == "cpu" and " " not in compiler and not shutil.which(compiler):
        raise UsageError(f"{CANNOT_COMPILE} (there is no program {compiler!r}).")
    fast: Callable[[torch.Tensor], torch.Tensor] = torch.compile(function, dynamic=False)
    return fast


def call_compiled(function: Callable[[], T]) -> T:
    """Call a function that compiles on this call.

    Raises:
        UsageError: it cannot be compiled here.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        return function()
    except TorchDynamoException as error:
        inner = getattr(error, "inner_exception", error)
        reason = " ".join(str(inner).split())[:MAX_REASON].rstrip(" .,:")
        raise UsageError(f"{CANNOT_COMPILE} ({type(inner).__name__}: {reason}).") from None


def largest_that_fits(call: Callable[[int], object], batch_size: int) -> tuple[int, list[str]]:
    """Call with a batch size, halving it until the device has enough memory.

    Returns:
        The batch size that fits, and a line about each that did not.
    """
    import torch

    notes: list[str] = []
    while True:
        try:
            call(batch_size)
            return batch_size, notes
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise
        half = batch_size // 2
        notes.append(f"Not enough memory for batches of {batch_size} frames: trying {half}.")
        batch_size = half
        torch.cuda.empty_cache()


def gpu_batch_size(memory: int, frame_bytes: int) -> int:
    """Return the default number of frames per forward pass on a GPU.

    It depends on the device's total memory, not on what is free now. Otherwise it would differ from
    run to run, and with it the last bits of features.

    Args:
        memory: total memory of the GPU in bytes.
        frame_bytes: see :func:`peak_bytes_per_frame`.

    Returns:
        A power of two.
    """
    smallest, largest = CUDA_BATCH_SIZES
    fit = int(memory * PASS_MEMORY_SHARE / frame_bytes)
    return max(smallest, min(largest, 1 << (max(1, fit).bit_length() - 1)))


def peak_bytes_per_frame(visual: Any) -> int:
    """Estimate the peak device memory in bytes that a forward pass takes per frame.

    Args:
        visual: OpenAI's image encoder, a ``VisionTransformer`` or a ``ModifiedResNet``.
    """
    n_px, weight = visual.input_resolution, visual.conv1.weight
    pixels = 3 * n_px**2 * PIXEL_BYTES
    if hasattr(visual, "transformer"):
        tokens = (n_px // weight.shape[-1]) ** 2 + 1
        numbers = (
            16 * tokens * weight.shape[0]
        )  # a block's input and its MLP, which is four times as wide
    else:
        numbers = 12 * weight.shape[0] * (n_px // 2) ** 2  # the stem's end and the first blocks
    return int(pixels + numbers * weight.element_size())


def measured_frame_bytes(
    module: Any,
    encode_image: Callable[[torch.Tensor], torch.Tensor],
    n_px: int,
    device: torch.device,
) -> int:
    """Estimate the peak memory in bytes that a forward pass takes per frame, by one with a frame.

    A block holds its input, its output and what is between; so the estimate is four times the
    largest output of a layer, as :func:`peak_bytes_per_frame` has it for OpenAI's models.

    Args:
        module: the image encoder.
        encode_image: its forward pass.
        n_px: side of its input in pixels.
        device: that it is on.
    """
    import torch

    largest = 0

    def look(_module: Any, _inputs: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, torch.Tensor):
            largest = max(largest, output.nbytes)

    hooks = [one.register_forward_hook(look) for one in module.modules()]
    try:
        with torch.inference_mode():
            encode_image(torch.zeros(1, 3, n_px, n_px, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    return 3 * n_px**2 * PIXEL_BYTES + 4 * largest
