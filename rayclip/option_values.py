"""Convert and check the values of options that callers and the command line give."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from rayclip.errors import UsageError
from rayclip.key_value_args import NULLS, parse_items
from rayclip.media.frame_choice import MAX_FPS, parse_fps, parse_seconds

AnyPath = str | os.PathLike[str]
MAX_MODELS = 32  # in one run: which of them lack a video is a number of 32 bits
DEVICE = re.compile(r"cpu|cuda(:\d+)?")


def to_path(value: AnyPath | None) -> str | None:
    """Convert a local path or URL to a string; None stays None."""
    return None if value is None else os.fspath(value)


def to_paths(value: AnyPath | Iterable[AnyPath]) -> tuple[str, ...]:
    """Convert one path or several to strings.

    Raises:
        UsageError: one is empty, or cannot be a file name.
    """
    values = [value] if isinstance(value, str | os.PathLike) else value
    paths = tuple(os.fspath(path) for path in values)
    for path in paths:
        if not path:
            raise UsageError("One of the video_paths is empty: remove it.")
        try:
            os.fsencode(path)
        except UnicodeEncodeError:
            raise UsageError(
                f"{path!r} of video_paths cannot be a file name: correct it."
            ) from None
    return paths


def to_local_folder(value: AnyPath) -> str:
    """Convert a local path to a string.

    Raises:
        UsageError: it is a URL.
    """
    if "://" in (folder := os.fspath(value)):
        raise UsageError(f"tmp_path must be a local folder, not {folder}.")
    return folder


def check_device(value: str | None) -> str | None:
    """Check the name of a device; None stays None.

    Raises:
        UsageError: it is not a device name.
    """
    if value is not None and not DEVICE.fullmatch(value):
        raise UsageError(f"device must be cpu, cuda or cuda:N, not {value!r}.")
    return value


def check_address(value: str | None) -> str | None:
    """Check the address of a Ray; None stays None.

    Raises:
        UsageError: it is an address of Ray Client.
    """
    if value is not None and value.startswith("ray://"):
        raise UsageError(
            "ray:// addresses (Ray Client) are not supported: run the command on the cluster "
            "with `ray job submit -- rayclip extract --address auto ...`."
        )
    return value


def to_texts(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Convert one text, several or none to a tuple.

    Raises:
        UsageError: one is blank or not printable.
    """
    texts = (value,) if isinstance(value, str) else tuple(value or ())
    for text in texts:
        if not text.isprintable() or not text.strip():
            raise UsageError(
                f"The text {text!r} of pred_texts is blank or not printable: correct it."
            )
    return texts


def parse_texts(arguments: Sequence[str]) -> list[str]:
    """Parse command line arguments, each of which is a text or a list in brackets."""
    return [text for argument in arguments for text in parse_items("pred_texts", argument)]


def to_model_names(value: str | Iterable[str]) -> tuple[str, ...]:
    """Convert the name of a model, or several, to a tuple without duplicates.

    Raises:
        UsageError: there is none, one is empty, or there are too many.
    """
    names = (value,) if isinstance(value, str) else tuple(dict.fromkeys(value))
    if not names or not all(name.strip() for name in names):
        raise UsageError("model_name is empty: give a value.")
    if len(names) > MAX_MODELS:
        raise UsageError(
            f"model_name has {len(names)} models, but a run takes {MAX_MODELS} at most: start "
            "several runs."
        )
    return names


def parse_model_names(arguments: Sequence[str]) -> list[str]:
    """Parse command line arguments, each of which is a name or a list in brackets."""
    return [name for argument in arguments for name in parse_items("model_name", argument)]


def to_fps(name: str, value: str | int | float | Fraction | None) -> Fraction | None:
    """Convert a frame rate to an exact fraction; None stays None.

    Args:
        name: of the option.
        value: what was given for it.

    Raises:
        UsageError: it is not a frame rate.
    """
    if value is None or (isinstance(value, str) and value.lower() in NULLS):
        return None
    try:
        return parse_fps(value)
    except ValueError:
        raise UsageError(
            f"{name} must be a number above zero, and at most {MAX_FPS}, such as 5, "
            f"2.5 or 30000/1001, not {value!r}."
        ) from None


def to_seconds(name: str, value: str | int | float | None) -> float | None:
    """Convert a time to seconds; None stays None.

    Args:
        name: of the option.
        value: what was given for it.

    Raises:
        UsageError: it is not a time.
    """
    if value is None or (isinstance(value, str) and value.lower() in NULLS):
        return None
    try:
        return parse_seconds(value)
    except ValueError:
        raise UsageError(
            f"{name} must be a number of seconds from 0 on, such as 90 or 12.5, not {value!r}."
        ) from None


def parse_storage_options(argument: str) -> dict[str, Any]:
    """Parse a JSON object from a command line argument.

    Raises:
        UsageError: it is not a JSON object.
    """
    try:
        options = json.loads(argument)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise UsageError('storage_options must be a JSON object such as {"anon": true}.')
    return options
