"""Open every file of an output folder and find the damaged ones; what is in them is only data."""

from __future__ import annotations

import math
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import repeat
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rayclip.done import FEATURES, FPS, TIMESTAMPS
from rayclip.folder import FeatureFolder
from rayclip.formats import SUFFIXES, Shape
from rayclip.recorded import Recorded
from rayclip.shard_names import SHARD, rows_of
from rayclip.shards import ShardFolder, trouble_of
from rayclip.spool import SLICE, slices

THREADS = 16  # most of the time of a remote file is waiting
AHEAD = 4 * THREADS  # videos that are begun before the first of them is answered

NPY_HEADERS: dict[tuple[int, int], Callable[..., tuple[Shape, bool, np.dtype[Any]]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
MAKES_ARRAYS = {
    ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,  # numpy 1
    ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
"""All that a pickle may call."""

Blocks = Iterator[NDArray[Any]]


class Damage(NamedTuple):
    """A file of a folder, and what is wrong with it."""

    file: str
    reason: str


class _Damaged(Exception):
    """The file that is being read is damaged; the message is the reason."""


def verify(recorded: Recorded) -> Iterator[Damage | None]:
    """Open every file of features, and those that go with it.

    Memory is bounded for ``.npy``, whatever they hold. A ``.pkl`` is in memory as a whole, twice,
    and there are up to :data:`THREADS` of them at once; of a shard, a row group is.

    Yields:
        For each video the first damage that was found, or None; one damage for a whole shard.

    Raises:
        UsageError: the folder cannot be listed.
    """

    if isinstance(recorded.folder, ShardFolder):
        yield from _verify_shards(recorded.folder)
        return

    def first_damage(file: str) -> Damage | None:
        # A run that goes on may replace files between our looks at two of them.
        return damage_of(recorded, file) and damage_of(recorded, file)

    endings = tuple(FEATURES + suffix for suffix in SUFFIXES)
    files = (file.path for file in recorded.folder.files() if file.path.endswith(endings))
    yield from _side_by_side(first_damage, files)


def _verify_shards(folder: ShardFolder) -> Iterator[Damage | None]:
    for file in folder.files():
        if SHARD.fullmatch(file.path):
            trouble = trouble_of(folder, file.path)
            if trouble:
                yield Damage(file.path, trouble)
            else:
                yield from repeat(None, rows_of(file.path))


def damage_of(recorded: Recorded, features: str) -> Damage | None:
    """What is wrong with a video, given its features file.

    Returns:
        None where nothing is, or where the features file is gone meanwhile.
    """
    folder, dim = recorded.folder, recorded.dim
    suffix = next(suffix for suffix in SUFFIXES if features.endswith(suffix))
    name = features.removesuffix(FEATURES + suffix)
    file = features
    try:
        clip = _shape_of(folder, file, recorded.dtype)
        if len(clip) != 2 or clip[0] < 1 or clip[1] != dim:
            raise _Damaged(f"its shape is {clip} and not (T, {dim})")
        file = name + TIMESTAMPS + suffix
        _expect(_shape_of(folder, file, "float64"), clip[:1])
        file = name + FPS + suffix
        _expect(_shape_of(folder, file, "float64", may_be_nan=True), ())
    except FileNotFoundError:
        return None if file == features else Damage(file, "it is missing")
    except _Damaged as error:
        return Damage(file, str(error))
    except Exception as error:  # each storage has exceptions of its own
        return Damage(file, f"it cannot be read: {str(error) or type(error).__name__}")
    return None


def _expect(shape: Shape, expected: Shape) -> None:
    if shape != expected:
        raise _Damaged(f"its shape is {shape} and not {expected}")


def _shape_of(folder: FeatureFolder, file: str, dtype: str, may_be_nan: bool = False) -> Shape:
    """Read an array of numbers to its end; its shape."""
    read = _npy if file.endswith(".npy") else _pickled
    with folder.open(file) as opened:
        shape, blocks = read(opened, np.dtype(dtype))
        for block in blocks:
            if not may_be_nan and not np.isfinite(block).all():
                raise _Damaged("not all of its numbers are finite")
    return shape


def _npy(file: IO[bytes], dtype: np.dtype[Any]) -> tuple[Shape, Blocks]:
    try:
        shape, _, found = NPY_HEADERS[np.lib.format.read_magic(file)](file)
    except Exception as error:  # numpy's, its parser's and its tokenizer's
        raise _Damaged("its header cannot be understood") from error
    _expect_dtype(found, dtype)
    return shape, _npy_blocks(file, math.prod(shape) * dtype.itemsize, dtype)


def _npy_blocks(file: IO[bytes], size: int, dtype: np.dtype[Any]) -> Blocks:
    for done in range(0, size, SLICE):
        content = file.read(min(SLICE, size - done))
        if len(content) < min(SLICE, size - done):
            raise _Damaged(f"it ends after {done + len(content)} of {size} bytes of numbers")
        yield np.frombuffer(content, dtype)
    if file.read(1):
        raise _Damaged("there is more in it than its header says")


def _pickled(file: IO[bytes], dtype: np.dtype[Any]) -> tuple[Shape, Blocks]:
    try:
        values = _ArrayUnpickler(file).load()
    except _Damaged:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise _Damaged(f"it is no whole pickle: {str(error) or type(error).__name__}") from error
    if type(values) is not np.ndarray:
        raise _Damaged("it holds no array")
    _expect_dtype(values.dtype, dtype)
    return values.shape, slices(values)


class _ArrayUnpickler(pickle.Unpickler):
    """Makes arrays, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return MAKES_ARRAYS[module, name]
        except KeyError:
            raise _Damaged(f"it asks for {module}.{name}, which no array needs") from None


def _expect_dtype(found: np.dtype[Any], expected: np.dtype[Any]) -> None:
    if found != expected:
        raise _Damaged(f"its numbers are {found} and not {expected}")


def _side_by_side(
    check: Callable[[str], Damage | None], files: Iterable[str]
) -> Iterator[Damage | None]:
    """What the check says of each file, in their order; the files are not gone through at once."""
    begun: deque[Future[Damage | None]] = deque()
    with ThreadPoolExecutor(THREADS) as threads:
        for file in files:
            begun.append(threads.submit(check, file))
            if len(begun) == AHEAD:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
