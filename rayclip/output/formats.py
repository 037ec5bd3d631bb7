"""File formats of arrays: writing them, and the number of frames by file size."""

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
PICKLE_SLACK = 24  # bytes: pickle's overhead grows with the size of numbers and contents

Shape = tuple[int, ...]


@dataclass(frozen=True)
class FileFormat:
    """The format of a run's features files.

    Attributes:
        suffix: ``.npy`` or ``.pkl``.
        dtype: ``float32`` or ``float16``, of the features.
        slack: by how many bytes the overhead of two files may differ.
    """

    suffix: str
    dtype: str
    slack: int

    def write(self, file: IO[bytes], values: NDArray[Any], dtype: str) -> None:
        """Write an array as a whole file, in C order.

        Args:
            file: the open file.
            values: an array of any shape. A ``np.memmap`` is written slice by slice to ``.npy``,
                but read into memory as a whole for ``.pkl``.
            dtype: the dtype in the file.

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
        """Bytes of a small file in addition to its data, by the number of axes."""
        return tuple(self._overhead(axes) for axes in range(3))

    def _overhead(self, axes: int) -> int:
        file, number = io.BytesIO(), np.zeros((1,) * axes)
        self.write(file, number, "float64")
        return file.tell() - number.nbytes

    def frames(
        self, features: NDArray[np.int64], timestamps: NDArray[np.int64], dim: int
    ) -> NDArray[np.int64]:
        """Return the frames of each video, from file sizes in bytes; 0 if these do not match.

        The shape of a ``.npy`` file determines its size; that of a ``.pkl`` file leaves
        :attr:`slack` + 1 possible sizes.
        """
        row = np.dtype(self.dtype).itemsize * dim
        frames, extra = np.divmod(features - self.overhead[2], row)
        extra_timestamps = timestamps - self.overhead[1] - 8 * frames
        whole = (frames > 0) & (extra <= self.slack)
        whole &= (extra_timestamps >= 0) & (extra_timestamps <= self.slack)
        return np.where(whole, frames, 0)

    def is_fps(self, size: int) -> bool:
        """Whether a file of this many bytes can hold a frame rate."""
        return size == self.overhead[0] + 8


def file_format(on_extraction: str, feature_dtype: str) -> FileFormat:
    """Return the format of ``save_numpy`` or ``save_pickle``."""
    if on_extraction == "save_pickle":
        return FileFormat(".pkl", feature_dtype, PICKLE_SLACK)
    return FileFormat(".npy", feature_dtype, 0)
