"""What the modules of several families share: refusals, and the names of their settings."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rayclip.errors import RayclipError, UsageError
from rayclip.model.checkpoint import file_sha256
from rayclip.model.exact_resize import Interpolation

EXTRA = "pip install 'rayclip[open_clip]'"
MAX_REASON = 200
INTERPOLATIONS: dict[str, Interpolation] = {
    "bicubic": "bicubic",
    "bilinear": "bilinear",
    "random": "bicubic",  # in training; their transforms for inference take bicubic
}


@contextmanager
def importing(model_name: str) -> Iterator[None]:
    """Replace the error of a missing package by a sentence.

    Raises:
        UsageError: a package of the extra is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise UsageError(f"{model_name} needs more packages ({error}): run {EXTRA}.") from error


@contextmanager
def building(model_name: str) -> Iterator[None]:
    """Replace the errors of a model that cannot be built, or of its weights, by a sentence.

    Raises:
        UsageError: the model cannot be built, its weights do not fit or hold code, or a package of
            the extra is not installed.
    """
    try:
        with importing(model_name):
            yield
    except (RayclipError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"The weights of {model_name} are damaged, or hold more than tensors, such as code, "
            "which is never run: choose weights in safetensors."
        ) from error
    except Exception as error:  # of open_clip, timm, transformers, torch and safetensors
        reason = " ".join(str(error).split())[:MAX_REASON].rstrip(" .")
        raise UsageError(
            f"{model_name} cannot be built ({type(error).__name__}: {reason}): its "
            "configuration, weights or tokenizer are damaged, or do not belong together."
        ) from error


def to_square(size: Any, model_name: str) -> int:
    """Return the side of a model's input in pixels, given as a number or ``[height, width]``.

    Raises:
        UsageError: it is not a square.
    """
    height, width = size if isinstance(size, list | tuple) else (size, size)
    if height != width:
        raise UsageError(
            f"{model_name} takes pictures of {width}x{height} pixels, but rayclip makes squares: "
            "choose another model."
        )
    return int(height)


def to_interpolation(name: str, model_name: str) -> Interpolation:
    """Return the filter with which a model's pictures are resized.

    Raises:
        UsageError: rayclip cannot resize with it.
    """
    if name not in INTERPOLATIONS:
        raise UsageError(
            f"{model_name} wants pictures resized with {name!r}, but rayclip has only "
            f"{', '.join(sorted({*INTERPOLATIONS.values()}))}: choose another model."
        )
    return INTERPOLATIONS[name]


def refuse_changed(checkpoint: str, sha256: str) -> None:
    """Refuse a local checkpoint that is not the described one.

    Raises:
        UsageError: it is missing on this machine, or it differs.
    """
    if not os.path.isfile(checkpoint) or file_sha256(checkpoint) != sha256:
        raise UsageError(
            f"{checkpoint} is missing here or differs from the one that was checked: put the "
            "same file on every node."
        )
