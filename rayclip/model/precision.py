"""What a forward pass is made of: number formats, compiled code, how many frames fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from rayclip.errors import UsageError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

CPU_BATCH_SIZE = 16  # measured: at 64, eager passes outgrow the caches and cost more a frame
CUDA_BATCH_SIZES = (16, 256)  # the least and the most; more only pads the ends of short runs
PASS_MEMORY_SHARE = 1 / 8  # of the device: two passes at once, weights, and other encoders on it
MAX_REASON = 200


def set_precision(model: Any, precision: str) -> None:
    """Let a CLIP compute in another format, in place.

    The tensors that OpenAI's loader has in fp16 on CUDA change; the others stay in fp32, and with
    them the normalisations, which the halves would lose too much in.

    Args:
        model: OpenAI's ``CLIP`` module, as their loader gives it.
        precision: ``auto`` (as it is), ``fp32``, ``fp16`` or ``bf16``.
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
            names = ("text_projection", "proj")  # bare matrices of their modules
            parameters = {name: parameters[name] for name in names if name in parameters}
        for parameter in parameters.values():
            parameter.data = parameter.data.to(dtype)


def compile_function(
    function: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The function compiled for each shape that it is called with, on the first such call."""
    import torch

    fast: Callable[[torch.Tensor], torch.Tensor] = torch.compile(function, dynamic=False)
    return fast


def call_compiled(function: Callable[[], T]) -> T:
    """Call what compiles something on the way.

    Raises:
        UsageError: it cannot be compiled here.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        return function()
    except TorchDynamoException as error:
        inner = getattr(error, "inner_exception", error)
        reason = " ".join(str(inner).split())[:MAX_REASON].rstrip(" .,:")
        raise UsageError(
            "compile needs a C++ compiler (g++, or what CXX names), Python's headers and, on GPUs, "
            f"Triton, and torch cannot compile here ({type(inner).__name__}: {reason})."
        ) from None


def largest_that_fits(call: Callable[[int], object], batch_size: int) -> tuple[int, list[str]]:
    """Make a call for a batch size, with half of it where the device has no memory for so many.

    Returns:
        The size that it had memory for, and a line for each that it had none for.
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
        notes.append(f"There is no memory for batches of {batch_size} frames: they have {half}.")
        batch_size = half
        torch.cuda.empty_cache()


def gpu_batch_size(memory: int, frame_bytes: int) -> int:
    """Frames per forward pass on a GPU where the user does not say.

    All of the device's memory counts, not what is free just now: the size must not differ from run
    to run, because the last bits of features differ with it.

    Args:
        memory: bytes that the GPU has.
        frame_bytes: see :func:`peak_bytes_per_frame`.

    Returns:
        A power of two.
    """
    least, most = CUDA_BATCH_SIZES
    fit = int(memory * PASS_MEMORY_SHARE / frame_bytes)
    return max(least, min(most, 1 << (max(1, fit).bit_length() - 1)))


def peak_bytes_per_frame(visual: Any) -> int:
    """About what a frame in a forward pass takes of the device's memory at its peak.

    Args:
        visual: OpenAI's image encoder, a ``VisionTransformer`` or a ``ModifiedResNet``.
    """
    n_px, weight = visual.input_resolution, visual.conv1.weight
    pixels = 3 * n_px**2 * 16  # as they come, in fp32, normalised and in the model's format
    if hasattr(visual, "transformer"):
        tokens = (n_px // weight.shape[-1]) ** 2 + 1
        numbers = 16 * tokens * weight.shape[0]  # a block's input, and its MLP four times as wide
    else:
        numbers = 12 * weight.shape[0] * (n_px // 2) ** 2  # the stem's end and the first blocks
    return int(pixels + numbers * weight.element_size())
