"""How an array becomes a file, and how large that file is: damaged ones are known by their size."""

from __future__ import annotations

import io
import math
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rayclip.output.spool import slices

LARGEST_OVERHEAD = 512  # bytes of a file beside its numbers, at the most
SUFFIXES = (".npy", ".pkl")
UNFRAMED = 65_536  # pickle writes bytes objects from this length on in one and the same way

Shape = tuple[int, ...]
Around = Callable[[Shape, str], tuple[bytes, bytes]]


@dataclass(frozen=True)
class FileFormat:
    """The files of a run.

    Attributes:
        suffix: ``.npy`` or ``.pkl``.
        dtype: of the features, ``float32`` or ``float16``.
        around: what a file has before and after its numbers, from shape and dtype alone.
    """

    suffix: str
    dtype: str
    around: Around

    def write(self, file: IO[bytes], values: NDArray[Any], dtype: str) -> None:
        """Write an array as a whole file, slice by slice, in C order.

        Args:
            file: takes the bytes.
            values: of any shape; a ``np.memmap`` does not come into memory as a whole.
            dtype: of the numbers in the file, to which each slice is converted.

        Raises:
            OSError: the file cannot be written.
        """
        head, tail = self.around(values.shape, dtype)
        file.write(head)
        for rows in slices(values):
            file.write(np.ascontiguousarray(rows, dtype).data)
        file.write(tail)

    def size(self, shape: Shape, dtype: str) -> int:
        """How many bytes :meth:`write` writes for an array of this shape."""
        return _size(self.around, shape, dtype)

    def features_size(self, frames: int, dim: int) -> int:
        """Bytes of the features file of so many frames."""
        return self.size((frames, dim), self.dtype)

    def timestamps_rows(self, size: int) -> int | None:
        """Rows of a timestamps file by its size; None where no number of rows gives that size."""
        return _rows(self.around, size)


def file_format(on_extraction: str, feature_dtype: str) -> FileFormat:
    """The format of ``save_numpy`` or ``save_pickle``."""
    if on_extraction == "save_pickle":
        return FileFormat(".pkl", feature_dtype, around_pickled)
    return FileFormat(".npy", feature_dtype, around_npy)


def around_npy(shape: Shape, dtype: str) -> tuple[bytes, bytes]:
    """What ``np.save`` writes before and after the numbers."""
    header = io.BytesIO()
    description = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue(), b""


def around_pickled(shape: Shape, dtype: str) -> tuple[bytes, bytes]:
    """What ``pickle.dumps(array, protocol=4)`` has before and after the numbers."""
    numbers = _bytes_of(shape, dtype)
    stand_in = b"\xff" * min(numbers, UNFRAMED)
    content = pickle.dumps(_Reduced(shape, dtype, stand_in), protocol=4)
    end = content.rindex(b"\xff") + 1  # no such byte comes after the numbers
    head, tail = content[: end - len(stand_in)], content[end:]
    if numbers > UNFRAMED:
        head = head.removesuffix(_length_of_bytes(UNFRAMED)) + _length_of_bytes(numbers)
    return head, tail


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


def _length_of_bytes(length: int) -> bytes:
    """What a pickle has before the content of a bytes object of at least 256 bytes."""
    if length < 2**32:
        return pickle.BINBYTES + struct.pack("<I", length)
    return pickle.BINBYTES8 + struct.pack("<Q", length)


def _bytes_of(shape: Shape, dtype: str) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _size(around: Around, shape: Shape, dtype: str) -> int:
    head, tail = around(shape, dtype)
    return len(head) + _bytes_of(shape, dtype) + len(tail)


@lru_cache(maxsize=65_536)
def _rows(around: Around, size: int) -> int | None:
    most = size // 8
    for rows in range(most, max(0, most - LARGEST_OVERHEAD // 8), -1):
        if _size(around, (rows,), "float64") == size:
            return rows
    return None
