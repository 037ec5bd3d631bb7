"""Files of arrays, and the number of frames by size."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rayclip.output import spool
from rayclip.output.formats import FileFormat, file_format

SHAPES = [(), (0,), (1,), (31,), (255,), (256,), (8191,), (8192,), (8193,), (65_536,), (70_000,)]
SHAPES += [(1, 64), (255, 64), (256, 64), (257, 300), (355, 512), (70_000, 3), (3, 70_000), (0, 4)]
DIM = 64
SLICE = 240  # bytes: ten rows of six float32


def written(files: FileFormat, values: NDArray[Any], dtype: str) -> bytes:
    file = io.BytesIO()
    files.write(file, values, dtype)
    return file.getvalue()


def as_libraries_write(on_extraction: str, values: NDArray[Any]) -> bytes:
    """The file that numpy or pickle make of an array in memory."""
    if on_extraction == "save_pickle":
        return pickle.dumps(values, protocol=4)
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    return file.getvalue()


def mapped(values: NDArray[Any], folder: Path) -> np.memmap[Any, Any]:
    values.tofile(folder / "values")
    return np.memmap(folder / "values", values.dtype, "r", shape=values.shape)


@pytest.fixture(params=["save_numpy", "save_pickle"])
def on_extraction(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_equals_that_of_numpy_or_pickle(
    shape: tuple[int, ...], dtype: str, on_extraction: str
) -> None:
    values = np.full(shape, -1 / 3, dtype)
    files = file_format(on_extraction, "float32")
    content = written(files, values, dtype)
    assert content == as_libraries_write(on_extraction, values)
    assert 0 <= len(content) - values.nbytes - files.overhead[len(shape)] <= files.slack


@pytest.mark.parametrize("rows", [0, 1, 9, 10, 11, 19, 20, 21, 1000, 4000])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("place", ["memory", "file"])
def test_slices_make_the_same_file_as_the_whole(
    rows: int,
    dtype: str,
    place: str,
    on_extraction: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spool, "SLICE", SLICE)
    values = np.random.default_rng(rows).normal(size=(rows, 6)).astype(np.float32)
    given = mapped(values, tmp_path) if rows and place == "file" else values
    content = written(file_format(on_extraction, dtype), given, dtype)
    assert content == as_libraries_write(on_extraction, values.astype(dtype))


def test_an_array_in_another_order_is_written_row_by_row(on_extraction: str) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    files = file_format(on_extraction, "float32")
    for given in (np.asfortranarray(values), np.repeat(values, 2, axis=1)[:, ::2]):
        assert written(files, given, "float32") == as_libraries_write(on_extraction, values)


def sizes(on_extraction: str, frames: int) -> tuple[int, int]:
    """Bytes of the features and the timestamps of a video."""
    files = file_format(on_extraction, "float32")
    features = written(files, np.zeros((frames, DIM)), "float32")
    return len(features), len(written(files, np.zeros(frames), "float64"))


@pytest.mark.parametrize("frames", [1, 2, 31, 32, 255, 256, 1000, 8192, 65_536, 70_000])
def test_the_number_of_frames_follows_from_sizes(on_extraction: str, frames: int) -> None:
    files = file_format(on_extraction, "float32")
    features, timestamps = sizes(on_extraction, frames)
    found = files.frames(np.array([features]), np.array([timestamps]), DIM)
    assert found.tolist() == [frames]


@pytest.mark.parametrize(
    ("more_features", "more_timestamps"),
    [(-32, 0), (32, 0), (0, -32), (0, 32), (-4 * 256, 0), (10**9, 0), (-(10**9), 0)],
)
def test_mismatched_sizes_give_no_frames(
    on_extraction: str, more_features: int, more_timestamps: int
) -> None:
    files = file_format(on_extraction, "float32")
    features, timestamps = sizes(on_extraction, 100)
    cut = np.array([features + more_features]), np.array([timestamps + more_timestamps])
    assert files.frames(*cut, DIM).tolist() == [0]


@pytest.mark.parametrize("more", [-4, -1, 1, 4])
def test_no_byte_of_an_npy_file_may_be_missing_or_too_much(more: int) -> None:
    features, timestamps = sizes("save_numpy", 100)
    given = np.array([features + more, features]), np.array([timestamps, timestamps + more])
    assert file_format("save_numpy", "float32").frames(*given, DIM).tolist() == [0, 0]


def test_both_kinds_of_files_give_the_array_back() -> None:
    values = np.arange(30_000, dtype=np.float32).reshape(-1, 4)
    npy, pickled = (
        written(file_format(kind, "float32"), values, "float32")
        for kind in ("save_numpy", "save_pickle")
    )
    np.testing.assert_array_equal(np.load(io.BytesIO(npy)), values)
    np.testing.assert_array_equal(pickle.loads(pickled), values)
