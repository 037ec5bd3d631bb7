"""A model's image preprocessing before normalisation, byte for byte, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rayclip.model.exact_resize import Interpolation, Part, exact_resize, is_available

RULE_VERSION = 1


@dataclass(frozen=True)
class Resizing:
    """How pictures become a model's squares. The default is OpenAI's way.

    Attributes:
        n_px: the model's input resolution.
        mode: ``shorter``: the shorter side becomes ``scaled_px``. ``squash``: both sides become
            ``scaled_px``. ``longest``: the longer side becomes ``scaled_px``. Then the centre of
            ``n_px`` is cropped, and what ``longest`` leaves empty is filled.
        interpolation: Pillow's filter.
        fill: the colour with which ``longest`` fills, RGB.
        margin_px: ``scaled_px`` less ``n_px``. timm crops a margin from many models' pictures.
    """

    n_px: int
    mode: Literal["shorter", "squash", "longest"] = "shorter"
    interpolation: Interpolation = "bicubic"
    fill: tuple[int, int, int] = (0, 0, 0)
    margin_px: int = 0

    @property
    def scaled_px(self) -> int:
        """The size in pixels that sides get before the centre is cropped."""
        return self.n_px + self.margin_px


class Placement(NamedTuple):
    """Size of the resized picture, and the top left corner of the model's square in it, in pixels.

    The corner is negative if the square is larger.
    """

    width: int
    height: int
    left: int
    top: int


def placement(width: int, height: int, resizing: Resizing) -> Placement:
    """Compute where the square of a picture of this size is.

    ``shorter`` is torchvision's ``Resize(scaled_px)`` + ``CenterCrop(n_px)``; ``longest`` is
    open_clip's and timm's ``ResizeKeepRatio(scaled_px, longest=1)`` + ``CenterCropOrPad(n_px)``.
    """
    n_px, scaled = resizing.n_px, resizing.scaled_px
    if resizing.mode == "squash":
        new_width = new_height = scaled
    elif resizing.mode == "longest":
        ratio = max(width / scaled, height / scaled)
        new_width, new_height = max(round(width / ratio), 1), max(round(height / ratio), 1)
    elif width <= height:
        new_width, new_height = scaled, int(scaled * height / width)
    else:
        new_width, new_height = int(scaled * width / height), scaled
    return Placement(new_width, new_height, _corner(new_width, n_px), _corner(new_height, n_px))


def _corner(size: int, n_px: int) -> int:
    """Return where the centre of ``n_px`` begins on a side of this size."""
    if size < n_px:
        return -((n_px - size) // 2)
    return round((size - n_px) / 2.0)  # rounds halves to even, as torchvision's does


def resize(
    rgb: NDArray[np.uint8], resizing: Resizing, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Make a model's square of a picture: resize its rows with Pillow's filter, then its columns.

    Args:
        rgb: uint8 ``[height, width, 3]``, with any strides.
        resizing: how.
        out: where to write it, uint8 ``[n_px, n_px, 3]``, contiguous; None makes a new array.

    Returns:
        uint8 ``[n_px, n_px, 3]``, contiguous; for OpenAI's way the same bytes as ``clip.load``'s
        preprocess before it normalises.
    """
    height, width = rgb.shape[:2]
    n_px = resizing.n_px
    square = np.empty((n_px, n_px, 3), np.uint8) if out is None else out
    place = placement(width, height, resizing)
    left, top = max(place.left, 0), max(place.top, 0)
    right, bottom = min(place.left + n_px, place.width), min(place.top + n_px, place.height)
    is_filled = (right - left, bottom - top) == (n_px, n_px)
    if (width, height) == (place.width, place.height) and is_filled:
        square[:] = rgb[top:bottom, left:right]
        return square
    if not is_filled:
        square[:] = resizing.fill
    x, y = max(-place.left, 0), max(-place.top, 0)
    part = square[y : y + bottom - top, x : x + right - left]
    across = Part(width, place.width, left, right)
    down = Part(height, place.height, top, bottom)
    if is_available():
        exact_resize(rgb, across, down, resizing.interpolation, part)
    else:
        _pillow_resize(rgb, across, down, resizing.interpolation, part)
    return square


def _pillow_resize(
    rgb: NDArray[np.uint8],
    across: Part,
    down: Part,
    interpolation: Interpolation,
    out: NDArray[np.uint8],
) -> None:
    """Do the same as :func:`exact_resize` with Pillow.

    In one call, Pillow from version 13 on resizes the columns of some tall pictures first.
    """
    resample = Image.Resampling[interpolation.upper()]
    image = Image.fromarray(rgb)
    image = image.resize((across.resized, down.size), resample)
    image = image.crop((across.begin, 0, across.end, down.size))
    image = image.resize((image.width, down.resized), resample)
    out[:] = np.asarray(image.crop((0, down.begin, image.width, down.end)))
