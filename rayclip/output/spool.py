"""Collect features that may exceed memory in a temporary file, and read them in slices."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

MAX_IN_MEMORY = 16 * 2**20  # bytes of features; a video with more goes to disk
SLICE = 8 * 2**20  # bytes read at a time


class FeatureSpool:
    """The features of one video, in order, in a temporary file if there are many.

    The file is in ``TMPDIR``. It has no name if the system supports that, so a killed process
    leaves nothing behind.

    Attributes:
        rows: the number of rows appended so far.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._dim = 0
        self._blocks: list[NDArray[np.float32]] = []
        self._file: IO[bytes] | None = None

    def __enter__(self) -> FeatureSpool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def append(self, features: NDArray[np.float32]) -> None:
        """Append a copy of float32 ``[n, D]``.

        Raises:
            ValueError: D differs from that of earlier rows.
            OSError: the temporary file cannot be created or written, e.g. on a full disk.
        """
        rows, dim = features.shape
        if self.rows and dim != self._dim:
            raise ValueError(f"cannot append features of {dim} numbers to features of {self._dim}")
        self._dim = dim
        if self._file is not None:
            self._file.write(np.ascontiguousarray(features, np.float32).data)
        else:
            # A copy, since an array from Ray would pin its memory in the object store.
            self._blocks.append(np.array(features, np.float32, order="C"))
            if (self.rows + rows) * dim * np.float32().nbytes > MAX_IN_MEMORY:
                self._move_to_disk()
        self.rows += rows

    def array(self) -> NDArray[np.float32]:
        """Return what was appended so far, float32 ``[T, D]``; it stays valid after :meth:`close`.

        A small array is in memory, a large one is a read-only ``np.memmap``, whose disk space is
        freed with it. Read the latter with :func:`slices`, since pages that were read count as
        memory of this process.

        Raises:
            ValueError: nothing was appended.
            OSError: the temporary file cannot be written, e.g. on a full disk.
        """
        if self._file is None:
            self._blocks = [np.concatenate(self._blocks)]
            return self._blocks[0]
        self._file.flush()
        return np.memmap(self._file, np.float32, "r", shape=(self.rows, self._dim))

    def close(self) -> None:
        """Close and delete the temporary file; arrays that map it stay valid."""
        self._blocks = []
        if self._file is not None:
            with suppress(OSError):  # buffered data that a full disk refused is not needed any more
                self._file.close()

    def _move_to_disk(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="rayclip-")  # noqa: SIM115
        for block in self._blocks:
            self._file.write(block.data)
        self._blocks = []


def rows_per_slice(arrays: Sequence[NDArray[Any]]) -> int:
    """Return how many rows of the widest array make about :data:`SLICE` bytes."""
    return max(1, SLICE // max(1, *(array[:1].nbytes for array in arrays)))


def slices(values: NDArray[Any], step: int | None = None) -> Iterator[NDArray[Any]]:
    """Yield the rows of an array, ``step`` or about :data:`SLICE` bytes at a time.

    For a read-only ``np.memmap``, each slice's pages are released after use, so that only one slice
    counts as memory of this process. A 0-d array is one row.
    """
    rows = np.atleast_1d(values)
    step = step or rows_per_slice([rows])
    for first in range(0, len(rows), step):
        yield rows[first : first + step]
        _release_pages(values)


def _release_pages(values: NDArray[Any]) -> None:
    # Only for read-only maps: data written to a private mapping would be lost.
    if isinstance(values, np.memmap) and values.mode == "r" and hasattr(mmap, "MADV_DONTNEED"):
        mapping: Any = values
        mapping._mmap.madvise(mmap.MADV_DONTNEED)
