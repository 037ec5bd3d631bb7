"""Forward passes of CLIPs with random weights, without rayclip around them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from bench_encode import DEMO, random_clip
from measure_precision import pictures
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from rayclip.model.checkpoint import load_model
from rayclip.model.loaded_model import LoadedModel
from rayclip.model.openai import DEMO_WEIGHTS, as_network
from rayclip.model.precision import compile_function, set_precision

SECONDS = 1.0  # of a loop
HALF_PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}
MATRIX = {"cuda": 8192, "cpu": 128}  # rows and columns; on GPUs, multiplying is then the limit
FREE_BYTES = 2**30  # of a GPU that is nearly full
CPU_FRAMES = 16  # per pass, for which a CPU has memory that stands in for such a GPU


def clip_on(name: str, precision: str, device: str) -> Any:
    """OpenAI's ``CLIP`` on a device."""
    if name == DEMO:
        model = load_model(str(DEMO_WEIGHTS), device, precision)
    else:
        model = random_clip(name, device)
    set_precision(model, precision)
    return model


@cache
def matrix_rate(precision: str, device: str) -> float:
    """Floating-point operations per second of the product of two large square matrices."""
    size = MATRIX[device]
    matrix = torch.randn(size, size, device=device).to(HALF_PRECISIONS[precision])
    return 2 * size**3 * _calls_per_s(lambda: matrix @ matrix, device)


def forward_rate(
    name: str, precision: str, device: str, batch_size: int, is_compiled: bool = False
) -> float:
    """Frames per second of a forward loop, with the pixels on the device."""
    model = clip_on(name, precision, device)
    n_px = model.visual.input_resolution
    pixels = torch.randn(batch_size, 3, n_px, n_px, device=device)
    pixels = pixels.to(memory_format=torch.channels_last)  # the memory layout of pictures
    encode = model.encode_image
    if is_compiled:
        torch._dynamo.reset()  # of the code for another model
        encode = compile_function(encode, pixels.device)
    return batch_size * _calls_per_s(lambda: encode(pixels), device)


@cache
def flops_per_frame(name: str) -> float:
    """Floating-point operations of a forward pass, two for a multiplication and an addition."""
    model = random_clip(name, "meta")
    n_px = model.visual.input_resolution
    frame = torch.zeros(1, 3, n_px, n_px, device="meta")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.encode_image(frame)
    return float(counter.get_total_flops())


@cache
def features_of(name: str, precision: str, device: str) -> NDArray[np.float32]:
    """rayclip's features of drawn pictures."""
    model = LoadedModel(as_network(clip_on(name, precision, device)), 64)
    return model.encode_image(pictures(model.n_px))


@contextmanager
def nearly_full(model: Any, device: str) -> Iterator[None]:
    """Leave little memory on a GPU; on a CPU, large passes fail as if there were none."""
    if device != "cpu":
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        ballast = torch.empty(max(0, free - FREE_BYTES), dtype=torch.uint8, device=device)
        yield
        del ballast
        return
    encode = model.encode_image

    def encode_few(pixels: torch.Tensor) -> torch.Tensor:
        if len(pixels) > CPU_FRAMES:
            raise torch.OutOfMemoryError("a stand-in for a GPU that is full")
        features: torch.Tensor = encode(pixels)
        return features

    model.encode_image = encode_few
    yield
    del model.encode_image


def _calls_per_s(call: Callable[[], object], device: str) -> float:
    def seconds(times: int) -> float:
        started = time.perf_counter()
        for _ in range(times):
            call()
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    with torch.inference_mode():
        seconds(2)  # compile, allocate and choose kernels
        times = math.ceil(SECONDS / seconds(1))
        return times / seconds(times)
