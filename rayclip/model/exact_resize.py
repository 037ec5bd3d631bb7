"""Pillow's resize in a fraction of its time: the library that ``exact_resize.c`` becomes."""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Interpolation = Literal["bicubic", "bilinear"]

FRACTION_BITS = 22  # of Pillow's weights
SUPPORT = {"bicubic": 2.0, "bilinear": 1.0}


class Part(NamedTuple):
    """Part of one side of a picture that is resized.

    Attributes:
        size: of the picture, in pixels.
        resized: size of the resized picture.
        begin, end: the wanted pixels of the resized picture.
    """

    size: int
    resized: int
    begin: int
    end: int


class _Axis(ctypes.Structure):
    """``Axis`` in ``exact_resize.c``."""

    _fields_ = (
        ("inputs", ctypes.c_int32),
        ("outputs", ctypes.c_int32),
        ("pairs", ctypes.c_int32),
        ("first", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
    )
    arrays: tuple[NDArray[Any], ...]  # keeps alive what the pointers point to


def _load() -> Any:
    """The function of the library; None if there is no library, or one of another version."""
    if os.environ.get("RAYCLIP_NO_EXTENSION"):
        return None
    try:
        function = ctypes.CDLL(str(Path(__file__).with_name("libexact_resize.so"))).rayclip_resize_1
    except (OSError, AttributeError):
        return None
    axis, pointer, stride = ctypes.POINTER(_Axis), ctypes.c_void_p, ctypes.c_ssize_t
    function.argtypes = [pointer, stride, stride, axis, axis, pointer, stride]
    return function


_resize = _load()


def is_available() -> bool:
    """Whether there is a library."""
    return _resize is not None


def exact_resize(
    rgb: NDArray[np.uint8],
    across: Part,
    down: Part,
    interpolation: Interpolation,
    out: NDArray[np.uint8],
) -> None:
    """Resize a picture along rows, then along columns, as Pillow does it in two calls.

    Args:
        rgb: uint8 ``[height, width, 3]``, with any strides.
        across: what is wanted of its width.
        down: what is wanted of its height.
        interpolation: Pillow's filter.
        out: the wanted pixels, uint8 ``[down.end - down.begin, across.end - across.begin, 3]``.
            Its rows may be apart, its pixels not.

    Raises:
        MemoryError: there is no memory.
    """
    if rgb.strides[2] != 1 or abs(rgb.strides[1]) < 3:
        rgb = np.ascontiguousarray(rgb)
    row_stride, column_stride, _ = rgb.strides
    x, y = _axis(across, interpolation), _axis(down, interpolation)
    if _resize(rgb.ctypes.data, row_stride, column_stride, x, y, out.ctypes.data, out.strides[0]):
        raise MemoryError("no memory for resizing a frame")


@lru_cache(maxsize=64)
def _axis(part: Part, interpolation: Interpolation) -> _Axis:
    first, weights = pillow_weights(part, interpolation)
    odd = first % 2  # the library begins at an even input
    outputs, taps = weights.shape
    even = np.zeros((outputs, (taps + 2) // 2 * 2), np.int32)
    np.put_along_axis(even, odd[:, None] + np.arange(taps), weights, axis=1)
    low = even.astype(np.int16)  # the lower 16 bits
    high = ((even - low) >> 16).astype(np.int16)
    halves = np.stack([low, high]).reshape(2, outputs, -1, 2)
    packed = np.ascontiguousarray(halves.transpose(1, 2, 0, 3)).view(np.int32)
    first = (first - odd).astype(np.int32)
    axis = _Axis(part.size, outputs, even.shape[1] // 2, first.ctypes.data, packed.ctypes.data)
    axis.arrays = (first, packed)
    return axis


def pillow_weights(
    part: Part, interpolation: Interpolation
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Compute Pillow's weights with its own operations on doubles, in its own order.

    Returns:
        The first input of each output, ``[outputs]``, and the weights from there on,
        ``[outputs, taps]``, with 22 fractional bits.
    """
    scale = part.size / part.resized
    stretch = max(scale, 1.0)
    support = SUPPORT[interpolation] * stretch
    centre = (np.arange(part.begin, part.end) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), part.size)
    inputs = first[:, None] + np.arange((last - first).max())
    distance = np.abs((inputs - centre[:, None] + 0.5) * (1.0 / stretch))
    weights = _bicubic(distance) if interpolation == "bicubic" else np.maximum(1.0 - distance, 0.0)
    weights[inputs >= last[:, None]] = 0.0
    weights /= np.cumsum(weights, axis=1)[:, -1:]  # np.sum adds in another order
    weights *= 1 << FRACTION_BITS
    return first, (weights + np.copysign(0.5, weights)).astype(np.int32)


def _bicubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    x, a = distance, -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
