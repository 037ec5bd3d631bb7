"""Read arrays from the files of an output folder, whose content is not trusted."""

from __future__ import annotations

import math
import pickle
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rayclip.errors import RunStopped
from rayclip.output.formats import Shape
from rayclip.output.spool import MAX_IN_MEMORY, SLICE, slices

NPY_HEADERS: dict[tuple[int, int], Callable[..., tuple[Shape, bool, np.dtype[Any]]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

BLOCK_BYTES = 2**18  # of features that are read and compared while they are in the cache

RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
ARRAY_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,  # numpy 1
    ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
"""The only globals that a pickle may use; any other one could run code."""

Blocks = Iterator[NDArray[Any]]


class DamagedContent(Exception):
    """The file being read is damaged; the message says how."""


class StoredArray(NamedTuple):
    """An array that is being read.

    Attributes:
        shape: the shape in the file's header.
        dtype: the dtype of its numbers.
        blocks: its numbers in C order, some rows or megabytes at a time; iterating may raise
            :class:`DamagedContent`.
    """

    shape: Shape
    dtype: np.dtype[Any]
    blocks: Blocks

    def read(self) -> NDArray[Any]:
        """Read the whole array into memory.

        Raises:
            DamagedContent: the file ends early.
        """
        numbers = [block.reshape(-1) for block in self.blocks]
        return np.concatenate(numbers).reshape(self.shape)

    def read_or_map(self) -> NDArray[Any]:
        """Read a small array into memory, and a large one into a temporary file.

        Returns:
            The array. If it is large, it is a read-only ``np.memmap``, whose disk space is freed
            with it.

        Raises:
            DamagedContent: the file ends early.
            RunStopped: the temporary file cannot be written.
        """
        if math.prod(self.shape) * self.dtype.itemsize <= MAX_IN_MEMORY:
            return self.read()
        with _temporary_errors():
            file = tempfile.TemporaryFile(prefix="rayclip-")  # noqa: SIM115
        try:
            for block in self.blocks:
                with _temporary_errors():
                    file.write(np.ascontiguousarray(block).data)
                    file.flush()
            return np.memmap(file, self.dtype, "r", shape=self.shape)
        finally:
            with suppress(OSError):  # buffered data that a full disk refused
                file.close()


@contextmanager
def _temporary_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunStopped(
            f"A temporary file in {tempfile.gettempdir()} cannot be written: {error}; free some "
            "space, or set TMPDIR to another folder."
        ) from error


def open_array(file: IO[bytes], suffix: str, dtype: str) -> StoredArray:
    """Start to read an array.

    Args:
        file: the file, at its beginning.
        suffix: ``.npy`` or ``.pkl``; the latter is read into memory as a whole.
        dtype: the expected dtype.

    Raises:
        DamagedContent: the file holds no such array.
    """
    read = _npy if suffix == ".npy" else _pickled
    return read(file, np.dtype(dtype))


def read_blocks(file: IO[bytes], dtype: str, dim: int) -> tuple[int, Blocks]:
    """Start to read the features of an ``.npy`` file in blocks of whole rows.

    A block fits into a processor's cache. It is valid until the next: all share their memory,
    since getting new memory from the system takes longer than reading a cached file.

    Args:
        file: a buffered local file, at its beginning.
        dtype: the expected dtype.
        dim: the expected number of columns.

    Returns:
        The number of rows, and blocks ``[n, dim]``; iterating may raise :class:`DamagedContent`.

    Raises:
        DamagedContent: the file holds no such array.
    """
    shape = open_array(file, ".npy", dtype).shape
    if len(shape) != 2 or shape[0] < 1 or shape[1] != dim:
        raise DamagedContent(f"its shape is {shape}, not (T, {dim})")
    return shape[0], _row_blocks(file, shape[0], np.dtype(dtype), dim)


def _row_blocks(file: Any, rows: int, dtype: np.dtype[Any], dim: int) -> Blocks:
    most = max(1, BLOCK_BYTES // (dim * dtype.itemsize))
    buffer = np.empty((min(most, rows), dim), dtype)
    for start in range(0, rows, most):
        block = buffer[: min(most, rows - start)]
        if file.readinto(block.data.cast("B")) < block.nbytes:
            raise DamagedContent(f"it ends before its {rows} rows")
        yield block
    if file.read(1):
        raise DamagedContent("it is longer than its header says")


def _npy(file: IO[bytes], dtype: np.dtype[Any]) -> StoredArray:
    try:
        shape, by_columns, found = NPY_HEADERS[np.lib.format.read_magic(file)](file)
    except Exception as error:  # numpy's own, or one of its parser or tokenizer
        raise DamagedContent("its header cannot be parsed") from error
    _expect_dtype(found, dtype)
    if by_columns:
        raise DamagedContent("its numbers are in Fortran order")
    return StoredArray(shape, dtype, _npy_blocks(file, math.prod(shape) * dtype.itemsize, dtype))


def _npy_blocks(file: IO[bytes], size: int, dtype: np.dtype[Any]) -> Blocks:
    for done in range(0, size, SLICE):
        content = file.read(min(SLICE, size - done))
        if len(content) < min(SLICE, size - done):
            raise DamagedContent(f"it ends after {done + len(content)} of {size} bytes of numbers")
        yield np.frombuffer(content, dtype)
    if file.read(1):
        raise DamagedContent("it is longer than its header says")


def _pickled(file: IO[bytes], dtype: np.dtype[Any]) -> StoredArray:
    try:
        values = _ArrayUnpickler(file).load()
    except DamagedContent:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise DamagedContent(
            f"it is not a complete pickle: {str(error) or type(error).__name__}"
        ) from error
    if type(values) is not np.ndarray:
        raise DamagedContent("it holds no array")
    _expect_dtype(values.dtype, dtype)
    return StoredArray(values.shape, dtype, slices(values))


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ARRAY_GLOBALS[module, name]
        except KeyError:
            raise DamagedContent(f"it uses {module}.{name}, which no array needs") from None


def _expect_dtype(found: np.dtype[Any], expected: np.dtype[Any]) -> None:
    if found != expected:
        raise DamagedContent(f"its numbers are {found}, not {expected}")
