"""How an array becomes a file, and how many frames files of some size have."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rayclip.output.spool import slices

SUFFIXES = (".npy", ".pkl")
PICKLE_SLACK = 24  # bytes: pickle writes large numbers, and long contents, with more around them

Shape = tuple[int, ...]


@dataclass(frozen=True)
class FileFormat:
    """The files of a run.

    Attributes:
        suffix: ``.npy`` or ``.pkl``.
        dtype: of the features, ``float32`` or ``float16``.
        slack: bytes by which the overhead of two files may differ.
    """

    suffix: str
    dtype: str
    slack: int

    def write(self, file: IO[bytes], values: NDArray[Any], dtype: str) -> None:
        """Write an array as a whole file, in C order.

        Args:
            file: takes the bytes.
            values: of any shape. A ``np.memmap`` is written slice by slice as ``.npy``; as ``.pkl``
                all of it is in memory.
            dtype: of the numbers in the file.

        Raises:
            OSError: the file cannot be written.
        """
        if self.suffix == ".pkl":
            pickle.dump(np.asarray(values, dtype, order="C"), file, protocol=4)
            return
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": values.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for rows in slices(values):
            file.write(np.ascontiguousarray(rows, dtype).data)

    @cached_property
    def overhead(self) -> tuple[int, ...]:
        """Bytes that a small file has in addition to its numbers, by the number of its axes."""
        return tuple(self._overhead(axes) for axes in range(3))

    def _overhead(self, axes: int) -> int:
        file, number = io.BytesIO(), np.zeros((1,) * axes)
        self.write(file, number, "float64")
        return file.tell() - number.nbytes

    def frames(
        self, features: NDArray[np.int64], timestamps: NDArray[np.int64], dim: int
    ) -> NDArray[np.int64]:
        """The frames of videos, by the bytes of their files; 0 if these do not fit together.

        A ``.npy`` file has one size for its shape, a ``.pkl`` one of :attr:`slack` + 1.
        """
        row = np.dtype(self.dtype).itemsize * dim
        frames, more = np.divmod(features - self.overhead[2], row)
        beside = timestamps - self.overhead[1] - 8 * frames
        whole = (frames > 0) & (more <= self.slack) & (beside >= 0) & (beside <= self.slack)
        return np.where(whole, frames, 0)

    def is_fps(self, size: int) -> bool:
        """Whether a file of this many bytes can hold a frame rate."""
        return size == self.overhead[0] + 8


def file_format(on_extraction: str, feature_dtype: str) -> FileFormat:
    """The format of ``save_numpy`` or ``save_pickle``."""
    if on_extraction == "save_pickle":
        return FileFormat(".pkl", feature_dtype, PICKLE_SLACK)
    return FileFormat(".npy", feature_dtype, 0)
