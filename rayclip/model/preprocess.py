"""OpenAI's image preprocessing before normalisation, byte for byte, without torch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class ClipBox(NamedTuple):
    """Size of the resized image and top left corner of the model's square in it, in pixels."""

    width: int
    height: int
    left: int
    top: int


def clip_box(width: int, height: int, n_px: int) -> ClipBox:
    """Compute the resize and crop of torchvision's ``Resize(n_px)`` + ``CenterCrop(n_px)``."""
    if width <= height:
        new_width, new_height = n_px, int(n_px * height / width)
    else:
        new_width, new_height = int(n_px * width / height), n_px
    # round() rounds halves to even, as torchvision's does
    left, top = round((new_width - n_px) / 2.0), round((new_height - n_px) / 2.0)
    return ClipBox(new_width, new_height, left, top)


def resize_crop_fast(rgb: NDArray[np.uint8], n_px: int) -> NDArray[np.uint8]:
    """Do the same as :func:`resize_crop` with torch's antialiased bicubic on uint8.

    This is much cheaper, and at most 2 levels of 255 off. It imports torch.
    """
    import torch

    height, width = rgb.shape[:2]
    box = clip_box(width, height, n_px)
    planes = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(
        planes, size=(box.height, box.width), mode="bicubic", antialias=True, align_corners=False
    )
    square = resized[0, :, box.top : box.top + n_px, box.left : box.left + n_px]
    return np.ascontiguousarray(square.permute(1, 2, 0).numpy())


def resize_crop(rgb: NDArray[np.uint8], n_px: int) -> NDArray[np.uint8]:
    """Resize the shorter side to ``n_px`` (PIL bicubic) and crop the centre.

    Args:
        rgb: uint8 ``[height, width, 3]``.
        n_px: the model's input resolution.

    Returns:
        uint8 ``[n_px, n_px, 3]``, the same bytes as ``clip.load``'s preprocess before it
        normalises.
    """
    height, width = rgb.shape[:2]
    box = clip_box(width, height, n_px)
    image = Image.fromarray(rgb)
    if height <= width:
        # Pillow resizes horizontally first: crop in between to resize fewer columns vertically
        image = image.resize((box.width, height), Image.Resampling.BICUBIC)
        image = image.crop((box.left, 0, box.left + n_px, height))
        return np.asarray(image.resize((n_px, n_px), Image.Resampling.BICUBIC))
    image = image.resize((box.width, box.height), Image.Resampling.BICUBIC)
    return np.asarray(image.crop((0, box.top, n_px, box.top + n_px)))
