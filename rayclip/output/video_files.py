"""The three files of one video, opened together and held against one another."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from rayclip.io.retry import with_retry
from rayclip.io.storage_errors import is_transient
from rayclip.output.done import FEATURES, FPS, TIMESTAMPS
from rayclip.output.formats import Shape
from rayclip.output.open_run import RecordedRun
from rayclip.output.stored_arrays import DamagedContent, StoredArray, open_array

T = TypeVar("T")
Read = Callable[[StoredArray], T]


class DamagedFile(Exception):
    """A file of a folder is damaged.

    Attributes:
        file: its name in the folder.
        reason: what is wrong with it.
    """

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(file, reason)
        self.file = file
        self.reason = reason


def read_video(recorded: RecordedRun, features: str, read: Read[T]) -> list[T] | None:
    """Open the three files of a video, one after the other.

    Args:
        recorded: the folder that they are in.
        features: the features file.
        read: goes through one of them; may raise :class:`DamagedContent`. It is called
            again where a storage fails for a moment.

    Returns:
        What ``read`` gave of features, timestamps and rate; None where the features file is gone
        meanwhile.

    Raises:
        DamagedFile: one of them is damaged, missing or cannot be read.
    """
    try:
        return _read_video(recorded, features, read)
    except DamagedFile:  # a run that goes on may replace files between our looks at two of them
        return _read_video(recorded, features, read)


def _read_video(recorded: RecordedRun, features: str, read: Read[T]) -> list[T] | None:
    stem, suffix = os.path.splitext(features)
    name = stem.removesuffix(FEATURES)
    values: list[T] = []
    shape: Shape | None = None
    for file in (features, name + TIMESTAMPS + suffix, name + FPS + suffix):
        try:
            shape, value = with_retry(partial(_read_file, recorded, file, shape, read), _may_pass)
        except FileNotFoundError as error:
            if file == features:
                return None
            raise DamagedFile(file, "it is missing") from error
        except DamagedContent as error:
            raise DamagedFile(file, str(error)) from error
        except Exception as error:  # each storage has exceptions of its own
            reason = f"it cannot be read: {str(error) or type(error).__name__}"
            raise DamagedFile(file, reason) from error
        values.append(value)
    return values


def _read_file(
    recorded: RecordedRun, file: str, before: Shape | None, read: Read[T]
) -> tuple[Shape, T]:
    """The shape of an array, and what ``read`` gives of it; ``before`` is the shape of the last."""
    dtype = "float64" if before else str(recorded.run["feature_dtype"])
    with recorded.folder.open(file) as opened:
        array = open_array(opened, os.path.splitext(file)[1], dtype)
        _expect_shape(array.shape, before, recorded.dim)
        return array.shape, read(array)


def _may_pass(error: Exception) -> bool:
    return not isinstance(error, DamagedContent) and is_transient(error)


def _expect_shape(shape: Shape, before: Shape | None, dim: int) -> None:
    """Features are ``[T, dim]``, timestamps ``[T]`` and the rate ``[]``: an axis less each time."""
    if before is None:
        if len(shape) != 2 or shape[0] < 1 or shape[1] != dim:
            raise DamagedContent(f"its shape is {shape} and not (T, {dim})")
    elif shape != before[:-1]:
        raise DamagedContent(f"its shape is {shape} and not {before[:-1]}")
