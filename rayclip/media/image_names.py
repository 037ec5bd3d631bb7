"""Which files of a folder are images, by their names."""

from __future__ import annotations

import re

IMAGE_NAME = re.compile(r"[^.].*\.(jpe?g|png|webp)", re.IGNORECASE | re.DOTALL)


def is_image_name(name: str) -> bool:
    """Whether a file name has the suffix of an image."""
    return IMAGE_NAME.fullmatch(name) is not None
