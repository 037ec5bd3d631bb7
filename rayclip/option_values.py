"""Values of options: what a caller or the command line gives becomes what ``Settings`` holds."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from rayclip.errors import UsageError
from rayclip.key_value_args import NULLS, parse_items
from rayclip.media.sampling import MAX_FPS, parse_fps

AnyPath = str | os.PathLike[str]
DEVICE = re.compile(r"cpu|cuda(:\d+)?")


def to_path(value: AnyPath | None) -> str | None:
    """A local path or URL as text; None stays None."""
    return None if value is None else os.fspath(value)


def to_paths(value: AnyPath | Iterable[AnyPath]) -> tuple[str, ...]:
    """One path or several, as texts.

    Raises:
        UsageError: one of them is empty, or cannot be a file's name.
    """
    several = [value] if isinstance(value, str | os.PathLike) else value
    paths = tuple(os.fspath(path) for path in several)
    for path in paths:
        if not path:
            raise UsageError("One of the video_paths is empty.")
        try:
            os.fsencode(path)
        except UnicodeEncodeError:
            raise UsageError(f"{path!r} of video_paths cannot be a file's name.") from None
    return paths


def to_local_folder(value: AnyPath) -> str:
    """A local path as text.

    Raises:
        UsageError: it is a URL.
    """
    if "://" in (folder := os.fspath(value)):
        raise UsageError(f"tmp_path must be a local folder, not {folder}.")
    return folder


def check_device(value: str | None) -> str | None:
    """A device; None stays None.

    Raises:
        UsageError: there is no such kind of device.
    """
    if value is not None and not DEVICE.fullmatch(value):
        raise UsageError(f"device must be cpu, cuda or cuda:N, not {value!r}.")
    return value


def check_address(value: str | None) -> str | None:
    """The address of a Ray; None stays None.

    Raises:
        UsageError: it is one of Ray Client.
    """
    if value is not None and value.startswith("ray://"):
        raise UsageError(
            "ray:// addresses (Ray Client) are not supported: run the command on the cluster "
            "with `ray job submit -- rayclip extract --address auto ...`."
        )
    return value


def to_texts(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """One text, several or none.

    Raises:
        UsageError: one of them cannot be read.
    """
    texts = (value,) if isinstance(value, str) else tuple(value or ())
    for text in texts:
        if not text.isprintable() or not text.strip():
            raise UsageError(f"The text {text!r} of pred_texts is not one that can be read.")
    return texts


def parse_texts(words: Sequence[str]) -> list[str]:
    """The texts in words of the command line, each of which is one or a list in brackets."""
    return [text for word in words for text in parse_items("pred_texts", word)]


def to_fps(value: str | int | float | Fraction | None) -> Fraction | None:
    """A user's frame rate as an exact fraction; None stays None.

    Raises:
        UsageError: it is no frame rate.
    """
    if value is None or (isinstance(value, str) and value.lower() in NULLS):
        return None
    try:
        return parse_fps(value)
    except ValueError:
        raise UsageError(
            f"extraction_fps must be a number above zero, and at most {MAX_FPS}, such as 5, "
            f"2.5 or 30000/1001, not {value!r}."
        ) from None


def parse_storage_options(word: str) -> dict[str, Any]:
    """A JSON object in a word of the command line.

    Raises:
        UsageError: it is no JSON object.
    """
    try:
        options = json.loads(word)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise UsageError('storage_options must be a JSON object such as {"anon": true}.')
    return options
