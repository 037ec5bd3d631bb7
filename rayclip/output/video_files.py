"""Read the three files of one video and check that they match."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rayclip.errors import RunStopped
from rayclip.io.retry import with_retry
from rayclip.io.storage_errors import is_transient
from rayclip.output.done import FEATURES, FPS, TIMESTAMPS
from rayclip.output.folder import FeatureFolder
from rayclip.output.formats import Shape
from rayclip.output.stored_arrays import DamagedContent, StoredArray, open_array

T = TypeVar("T")
Read = Callable[[StoredArray], T]


class DamagedFile(Exception):
    """A file of an output folder is damaged.

    Attributes:
        file: its name in the folder.
        reason: what is wrong with it, for users.
    """

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(file, reason)
        self.file = file
        self.reason = reason


def read_video(
    folder: FeatureFolder, features: str, dtype: str, dim: int, read: Read[T]
) -> list[T] | None:
    """Open and read the three files of a video.

    Args:
        folder: the folder of the files.
        features: the name of the features file.
        dtype: the dtype of the features.
        dim: features per frame.
        read: reads one array; may raise :class:`DamagedContent`. It is called again for each retry.

    Returns:
        The results of ``read`` for features, timestamps and frame rate; None if the features file
        was removed meanwhile.

    Raises:
        DamagedFile: one of them is damaged, missing or unreadable.
    """
    try:
        return _read_video(folder, features, dtype, dim, read)
    except DamagedFile:  # a run in progress may have replaced files between two reads
        return _read_video(folder, features, dtype, dim, read)


def read_timestamps(folder: FeatureFolder, file: str, frames: int) -> NDArray[np.float64]:
    """Read the timestamps of a video with this many frames: float64 ``[T]``, in ms.

    Raises:
        DamagedFile: the file is damaged, missing or unreadable.
    """
    read = partial(_read_file, folder, file, (frames, 1), "float64", 1, lambda array: array.read())
    try:
        times: NDArray[np.float64] = with_retry(read, _is_transient)[1]
    except FileNotFoundError as error:
        raise DamagedFile(file, "it is missing") from error
    except DamagedContent as error:
        raise DamagedFile(file, str(error)) from error
    except Exception as error:  # each storage has exceptions of its own
        reason = f"it cannot be read: {str(error) or type(error).__name__}"
        raise DamagedFile(file, reason) from error
    return times


def _read_video(
    folder: FeatureFolder, features: str, dtype: str, dim: int, read: Read[T]
) -> list[T] | None:
    stem, suffix = os.path.splitext(features)
    name = stem.removesuffix(FEATURES)
    values: list[T] = []
    shape: Shape | None = None
    for file in (features, name + TIMESTAMPS + suffix, name + FPS + suffix):
        try:
            shape, value = with_retry(
                partial(_read_file, folder, file, shape, dtype, dim, read), _is_transient
            )
        except FileNotFoundError as error:
            if file == features:
                return None
            raise DamagedFile(file, "it is missing") from error
        except DamagedContent as error:
            raise DamagedFile(file, str(error)) from error
        except RunStopped:
            raise
        except Exception as error:  # each storage has exceptions of its own
            reason = f"it cannot be read: {str(error) or type(error).__name__}"
            raise DamagedFile(file, reason) from error
        values.append(value)
    return values


def _read_file(
    folder: FeatureFolder, file: str, before: Shape | None, dtype: str, dim: int, read: Read[T]
) -> tuple[Shape, T]:
    """Return an array's shape and the result of ``read``; ``before`` is the last file's shape."""
    with folder.open(file) as opened:
        array = open_array(opened, os.path.splitext(file)[1], "float64" if before else dtype)
        _expect_shape(array.shape, before, dim)
        return array.shape, read(array)


def _is_transient(error: Exception) -> bool:
    return not isinstance(error, DamagedContent) and is_transient(error)


def _expect_shape(shape: Shape, before: Shape | None, dim: int) -> None:
    """Check a shape: ``[T, dim]`` for features, ``[T]`` for timestamps, ``[]`` for the rate."""
    if before is None:
        if len(shape) != 2 or shape[0] < 1 or shape[1] != dim:
            raise DamagedContent(f"its shape is {shape}, not (T, {dim})")
    elif shape != before[:-1]:
        raise DamagedContent(f"its shape is {shape}, not {before[:-1]}")
