"""The files of arrays, and their sizes without them."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rayclip.output import spool
from rayclip.output.formats import FileFormat, around_pickled, file_format

SHAPES = [(), (0,), (1,), (31,), (255,), (256,), (8191,), (8192,), (8193,), (65_536,), (70_000,)]
SHAPES += [(1, 64), (255, 64), (256, 64), (257, 300), (355, 512), (70_000, 3), (3, 70_000), (0, 4)]
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
def test_a_file_is_what_numpy_or_pickle_make_and_its_size_follows_from_shape_and_dtype(
    shape: tuple[int, ...], dtype: str, on_extraction: str
) -> None:
    values = np.full(shape, -1 / 3, dtype)
    files = file_format(on_extraction, "float32")
    content = written(files, values, dtype)
    assert content == as_libraries_write(on_extraction, values)
    assert files.size(shape, dtype) == len(content)


def test_numbers_of_set_bits_only_do_not_disturb_a_file(on_extraction: str) -> None:
    for length in (1, 64, 128, 20_000):  # as bytes: lengths that hold such a byte, or do not
        values = np.frombuffer(b"\xff" * (4 * length - 1) + b"\x7f", np.float32)
        content = written(file_format(on_extraction, "float32"), values, "float32")
        assert content == as_libraries_write(on_extraction, values)


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


def test_the_pickle_of_more_than_four_gigabytes_says_so() -> None:
    head, tail = around_pickled((2**30 + 1,), "float32")
    assert head.endswith(pickle.BINBYTES8 + (2**32 + 4).to_bytes(8, "little"))
    below, same_tail = around_pickled((2**30 - 1,), "float32")
    assert below.endswith(pickle.BINBYTES + (2**32 - 4).to_bytes(4, "little"))
    assert tail == same_tail


@pytest.mark.parametrize("rows", [1, 2, 9, 10, 99, 255, 256, 1000, 8192, 65_536, 1_000_000])
def test_the_number_of_frames_follows_from_the_size_of_a_timestamps_file(
    on_extraction: str, rows: int
) -> None:
    files = file_format(on_extraction, "float32")
    size = files.size((rows,), "float64")
    assert files.timestamps_rows(size) == rows
    assert files.timestamps_rows(size - 1) is None
    assert files.timestamps_rows(size + 1) is None


@pytest.mark.parametrize("size", [0, 1, 128, 150])
def test_a_size_that_no_timestamps_have_gives_no_frames(on_extraction: str, size: int) -> None:
    assert file_format(on_extraction, "float32").timestamps_rows(size) in (None, 0)


def test_both_kinds_of_files_give_the_array_back() -> None:
    values = np.arange(30_000, dtype=np.float32).reshape(-1, 4)
    npy, pickled = (
        written(file_format(kind, "float32"), values, "float32")
        for kind in ("save_numpy", "save_pickle")
    )
    np.testing.assert_array_equal(np.load(io.BytesIO(npy)), values)
    np.testing.assert_array_equal(pickle.loads(pickled), values)
