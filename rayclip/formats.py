"""How an array becomes a file, and how large that file is: damaged ones are known by their size."""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_OVERHEAD = 512  # bytes of a file beside its numbers, at the most
SUFFIXES = (".npy", ".pkl")
UNFRAMED = 65_536  # pickle writes bytes objects from this length on in one and the same way

Shape = tuple[int, ...]


@dataclass(frozen=True)
class FileFormat:
    """The files of a run.

    Attributes:
        suffix: ``.npy`` or ``.pkl``.
        dtype: of the features, ``float32`` or ``float16``.
        content: makes the bytes of a file from an array.
        size: the length of those bytes, from shape and dtype alone.
    """

    suffix: str
    dtype: str
    content: Callable[[NDArray[Any]], bytes]
    size: Callable[[Shape, str], int]

    def features_size(self, frames: int, dim: int) -> int:
        """Bytes of the features file of so many frames."""
        return self.size((frames, dim), self.dtype)

    def timestamps_rows(self, size: int) -> int | None:
        """Rows of a timestamps file by its size; None where no number of rows gives that size."""
        return _rows(self.size, size)


def file_format(on_extraction: str, feature_dtype: str) -> FileFormat:
    """The format of ``save_numpy`` or ``save_pickle``."""
    if on_extraction == "save_pickle":
        return FileFormat(".pkl", feature_dtype, pickled, pickled_size)
    return FileFormat(".npy", feature_dtype, npy, npy_size)


def npy(values: NDArray[Any]) -> bytes:
    """The content of a ``.npy`` file."""
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    return file.getvalue()


def npy_size(shape: Shape, dtype: str) -> int:
    """``len(npy(array))`` for an array of this shape and dtype."""
    header = io.BytesIO()
    description = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    return header.tell() + _bytes_of(shape, dtype)


def pickled(values: NDArray[Any]) -> bytes:
    """The content of a ``.pkl`` file."""
    return pickle.dumps(np.asarray(values, order="C"), protocol=4)


def pickled_size(shape: Shape, dtype: str) -> int:
    """``len(pickled(array))`` for an array of this shape and dtype."""
    numbers = _bytes_of(shape, dtype)
    stand_in = bytes(min(numbers, UNFRAMED))
    return len(pickle.dumps(_Reduced(shape, dtype, stand_in), protocol=4)) - len(stand_in) + numbers


class _Reduced:
    """Pickles like an array of some shape, with other numbers in it."""

    def __init__(self, shape: Shape, dtype: str, numbers: bytes) -> None:
        self._shape = shape
        self._dtype = dtype
        self._numbers = numbers

    def __reduce__(self) -> tuple[Any, ...]:
        reduced: Any = np.empty(0, self._dtype).__reduce__()
        make, arguments, state = reduced
        version, _, dtype, is_fortran, _ = state
        return make, arguments, (version, self._shape, dtype, is_fortran, self._numbers)


def _bytes_of(shape: Shape, dtype: str) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


@lru_cache(maxsize=65_536)
def _rows(size_of: Callable[[Shape, str], int], size: int) -> int | None:
    most = size // 8
    for rows in range(most, max(0, most - LARGEST_OVERHEAD // 8), -1):
        if size_of((rows,), "float64") == size:
            return rows
    return None
