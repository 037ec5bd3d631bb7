"""The files of arrays, and their sizes without them."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest

from rayclip.formats import file_format, npy, npy_size, pickled, pickled_size

SHAPES = [(0,), (1,), (31,), (255,), (256,), (8191,), (8192,), (8193,), (65_536,), (70_000,)]
SHAPES += [(1, 64), (255, 64), (256, 64), (257, 300), (355, 512), (70_000, 3), (3, 70_000)]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_size_of_a_file_follows_from_shape_and_dtype(
    shape: tuple[int, ...], dtype: str
) -> None:
    values = np.ones(shape, dtype)
    assert npy_size(shape, dtype) == len(npy(values))
    assert pickled_size(shape, dtype) == len(pickled(values))


@pytest.mark.parametrize("rows", [1, 2, 9, 10, 99, 255, 256, 1000, 8192, 65_536, 1_000_000])
@pytest.mark.parametrize("on_extraction", ["save_numpy", "save_pickle"])
def test_the_number_of_frames_follows_from_the_size_of_a_timestamps_file(
    on_extraction: str, rows: int
) -> None:
    files = file_format(on_extraction, "float32")
    size = files.size((rows,), "float64")
    assert files.timestamps_rows(size) == rows
    assert files.timestamps_rows(size - 1) is None
    assert files.timestamps_rows(size + 1) is None


@pytest.mark.parametrize("size", [0, 1, 128, 150])
@pytest.mark.parametrize("on_extraction", ["save_numpy", "save_pickle"])
def test_a_size_that_no_timestamps_have_gives_no_frames(on_extraction: str, size: int) -> None:
    assert file_format(on_extraction, "float32").timestamps_rows(size) in (None, 0)


def test_both_kinds_of_files_give_the_array_back() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(np.load(io.BytesIO(npy(values))), values)
    np.testing.assert_array_equal(pickle.loads(pickled(values)), values)
