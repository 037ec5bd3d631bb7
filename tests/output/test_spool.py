"""Features in memory or in a temporary file, and how little memory a long video needs."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rayclip.output import spool
from rayclip.output.spool import FeatureSpool, slices

DIM = 6
ROW = DIM * 4  # bytes
MB = 2**20


def features(rows: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(rows, DIM)).astype(np.float32)


def looked_at(spooled: FeatureSpool, block: NDArray[np.float32]) -> NDArray[np.float32]:
    spooled.append(block)
    return spooled.array()


@pytest.fixture
def temporary_files(monkeypatch: pytest.MonkeyPatch) -> list[IO[bytes]]:
    """The temporary files that were made, in order; ten rows are small."""
    made: list[IO[bytes]] = []
    make: Callable[..., IO[bytes]] = tempfile.TemporaryFile

    def noted(*arguments: Any, **options: Any) -> IO[bytes]:
        made.append(make(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", noted)
    monkeypatch.setattr(spool, "MAX_IN_MEMORY", 10 * ROW)
    return made


def test_small_features_never_touch_the_disk(temporary_files: list[IO[bytes]]) -> None:
    with FeatureSpool() as spooled:
        spooled.append(features(4))
        spooled.append(features(6, seed=1))
        array = spooled.array()
        assert spooled.rows == 10
    assert not isinstance(array, np.memmap)
    np.testing.assert_array_equal(array, np.concatenate([features(4), features(6, seed=1)]))
    assert temporary_files == []


@pytest.mark.parametrize("sizes", [[11], [10, 1], [1, 10], [4, 4, 4, 4], [30, 0, 30], [3] * 50])
def test_large_features_come_back_from_a_file_in_order(
    temporary_files: list[IO[bytes]], sizes: list[int]
) -> None:
    blocks = [features(rows, seed) for seed, rows in enumerate(sizes)]
    with FeatureSpool() as spooled:
        for block in blocks:
            spooled.append(block)
        array = spooled.array()
        assert isinstance(array, np.memmap)
        assert (array.dtype, array.flags.writeable, spooled.rows) == (np.float32, False, sum(sizes))
    assert [file.closed for file in temporary_files] == [True]
    np.testing.assert_array_equal(array, np.concatenate(blocks))  # still mapped


@pytest.mark.parametrize("rows", [3, 30])
def test_more_can_be_appended_after_reading(temporary_files: list[IO[bytes]], rows: int) -> None:
    with FeatureSpool() as spooled:
        spooled.append(features(rows))
        before = spooled.array()
        spooled.append(features(rows, seed=1))
        np.testing.assert_array_equal(before, features(rows))
        np.testing.assert_array_equal(
            spooled.array(), np.concatenate([features(rows), features(rows, seed=1)])
        )


def test_what_is_appended_is_a_copy() -> None:
    block = features(3)
    with FeatureSpool() as spooled:
        spooled.append(block)
        block[:] = 0
        np.testing.assert_array_equal(spooled.array(), features(3))


def test_features_in_another_order_in_memory_are_stored_row_by_row(
    temporary_files: list[IO[bytes]],
) -> None:
    with FeatureSpool() as spooled:
        for _ in range(3):
            spooled.append(np.asfortranarray(features(8)))
        np.testing.assert_array_equal(spooled.array(), np.tile(features(8), (3, 1)))


def test_features_of_another_dimension_are_refused() -> None:
    with FeatureSpool() as spooled:
        spooled.append(features(3))
        with pytest.raises(ValueError, match="7 numbers to features of 6"):
            spooled.append(np.zeros((3, 7), np.float32))


def test_an_empty_spool_has_no_array() -> None:
    with FeatureSpool() as spooled, pytest.raises(ValueError, match="at least one"):
        spooled.array()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the file may have a name")
def test_the_temporary_file_is_in_tmpdir_and_has_no_name(tmp_path: Path) -> None:
    code = (
        "import os; from rayclip.output import spool; import numpy as np; spool.MAX_IN_MEMORY = 0\n"
        "spooled = spool.FeatureSpool(); spooled.append(np.ones((3, 4), np.float32))\n"
        "print([os.readlink(f'/proc/self/fd/{fd}') for fd in (spooled._file.fileno(),)][0])\n"
        "print(os.listdir(os.environ['TMPDIR']))"
    )
    place, left = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert place.startswith(f"{tmp_path}/")
    assert left == "[]"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no disk that is always full")
@pytest.mark.parametrize("rows", [1, 10_000], ids=["while-looking", "while-appending"])
def test_a_full_disk_is_an_os_error(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(spool, "MAX_IN_MEMORY", 0)
    with open("/dev/full", "w+b") as full, FeatureSpool() as spooled:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full)
        with pytest.raises(OSError, match="No space left") as caught:
            looked_at(spooled, features(rows))
        assert caught.value.errno == errno.ENOSPC


def test_a_missing_temporary_folder_is_an_os_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(spool, "MAX_IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with FeatureSpool() as spooled, pytest.raises(FileNotFoundError):
        spooled.append(features(1))


@pytest.mark.parametrize("rows", [0, 1, 9, 10, 11, 25])
def test_slices_add_up_to_the_array(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(spool, "SLICE", 10 * ROW)
    lengths = [len(part) for part in slices(features(rows))]
    assert lengths == [10] * (rows // 10) + [rows % 10] * (rows % 10 > 0)
    parts = [features(0), *slices(features(rows))]
    np.testing.assert_array_equal(np.concatenate(parts), features(rows))


def test_a_row_longer_than_a_slice_is_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SLICE", 1)
    assert [len(part) for part in slices(features(3))] == [1, 1, 1]


def test_an_array_without_dimensions_is_one_row() -> None:
    assert [part.tolist() for part in slices(np.array(25.0))] == [[25.0]]


def test_what_was_written_to_a_private_mapping_stays(tmp_path: Path) -> None:
    features(5).tofile(tmp_path / "values")
    private = np.memmap(tmp_path / "values", np.float32, "c", shape=(5, DIM))
    private[:] = 7
    assert len(list(slices(private))) == 1
    assert (private == 7).all()


LONG_VIDEO = """
import sys
import numpy as np
from rayclip.output.spool import FeatureSpool
from rayclip.output.array_folder import Extraction, ArrayFolder

def most_resident_mb():
    # Not getrusage: its ru_maxrss begins with what the parent had when it forked.
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) // 1024

rows, folder = int(sys.argv[1]), sys.argv[2]
before = most_resident_mb()
with FeatureSpool() as spooled:
    block = np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32)
    while spooled.rows < rows:
        spooled.append(block)
    output = ArrayFolder(folder, 512, {})
    output.prepare()
    times = np.arange(spooled.rows) * 1000 / 30
    output.commit("long", Extraction(spooled.array(), times, 30.0))
    assert output.committed_frames("long") == spooled.rows
print(before, most_resident_mb())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux's")
def test_a_long_video_is_committed_in_little_memory(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < 2048 * MB:
        pytest.skip("there is little room on the disk")
    ended = subprocess.run(
        [sys.executable, "-c", LONG_VIDEO, str(300 * MB // 2048), str(tmp_path / "output")],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    shutil.rmtree(tmp_path / "output")  # pytest keeps the folders of its last runs
    before, most = map(int, ended.stdout.split())
    assert most - before < 100
    assert most < 400
