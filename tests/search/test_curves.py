"""Exact comparison of every frame with queries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import output_folders
import pytest
from numpy.typing import NDArray

from rayclip.output.array_folder import ArrayFolder
from rayclip.output.finished import scan_features
from rayclip.output.formats import file_format
from rayclip.output.rows import Extraction
from rayclip.output.video_files import DamagedFile
from rayclip.search.curves import Scan, compare

DIM = 24
Clips = dict[str, NDArray[np.float32]]


def some_clips(lengths: list[int]) -> Clips:
    rng = np.random.default_rng(7)
    return {
        f"v{number}": rng.standard_normal((length, DIM)).astype(np.float32) * (number + 1)
        for number, length in enumerate(lengths)
    }


def folder_of(path: Path, clips: Clips, on_extraction: str, dtype: str) -> ArrayFolder:
    folder = ArrayFolder(str(path / dtype), DIM, {}, file_format(on_extraction, dtype))
    folder.prepare()
    for name, clip in clips.items():
        folder.commit(name, Extraction(clip, np.arange(len(clip)) * 100.0, 25.0))
    return folder


def queries(number: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(8).standard_normal((number, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def scan(folder: ArrayFolder, vectors: NDArray[np.float32], keep: int = 99) -> Scan:
    damaged: list[DamagedFile] = []
    return compare(scan_features(folder, damaged.append), vectors, keep, damaged)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("on_extraction", ["save_numpy", "save_pickle"])
def test_the_cosines_are_those_of_the_definition(
    tmp_path: Path, on_extraction: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rayclip.output.stored_arrays.BLOCK_BYTES", 4 * DIM * 4)
    clips, vectors = some_clips([1, 4, 11]), queries(3)
    found = scan(folder_of(tmp_path, clips, on_extraction, dtype), vectors)
    every = []
    for curve in found.curves[0]:
        saved = clips[curve.video].astype(dtype).astype(np.float64)
        cosines = saved @ vectors.T / np.linalg.norm(saved, axis=1, keepdims=True)
        assert np.allclose(curve.cosines, cosines, atol=1e-6)
        assert np.array_equal(curve.timestamps_ms(), np.arange(len(saved)) * 100.0)
        every.append(cosines)
    joined = np.concatenate(every)
    assert (found.videos, found.frames) == (3, 16)
    assert np.allclose(found.mean, joined.mean(0))
    assert np.allclose(found.deviation, joined.std(0))


def test_the_videos_with_the_highest_cosines_are_kept_for_each_query(tmp_path: Path) -> None:
    vectors = queries(4)
    folder = folder_of(tmp_path, some_clips([5] * 20), "save_numpy", "float32")
    every = scan(folder, vectors).curves
    for column, curves in enumerate(scan(folder, vectors, keep=3).curves):
        best = sorted(every[column], key=lambda curve: -curve.cosines[:, column].max())[:3]
        assert [curve.video for curve in curves] == [curve.video for curve in best]


def test_features_of_zeros_or_without_a_number_fit_nothing(tmp_path: Path) -> None:
    clip = np.ones((3, DIM), np.float32)
    clip[1], clip[2, 0] = 0, np.nan
    found = scan(folder_of(tmp_path, {"odd": clip}, "save_numpy", "float32"), queries(1))
    assert found.curves[0][0].cosines[1:].tolist() == [[0.0], [0.0]]
    assert np.isfinite([found.mean, found.deviation]).all()


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY nonsense"])
@pytest.mark.parametrize("keep", [False, True])
def test_a_damaged_file_is_left_out_and_named(tmp_path: Path, damage: bytes, keep: bool) -> None:
    folder = folder_of(tmp_path, some_clips([4, 4]), "save_numpy", "float32")
    file = Path(folder.url) / "v0_clip.npy"
    file.write_bytes(file.read_bytes()[:-1] if keep else damage)
    found = scan(folder, queries(1))
    assert [curve.video for curve in found.curves[0]] == ["v1"]
    assert [error.file for error in found.damaged] == ["v0_clip.npy"]


def test_only_the_features_of_local_npy_files_are_read(tmp_path: Path) -> None:
    folder = output_folders.a_run(tmp_path)
    output_folders.commit(folder, "video")
    (Path(folder.url) / "video_timestamps_ms.npy").unlink()
    vector = np.ones((1, output_folders.DIM), np.float32) / 2
    (curve,) = scan(folder, vector).curves[0]
    assert np.allclose(curve.cosines, 1)
    with pytest.raises(DamagedFile, match="missing"):
        curve.timestamps_ms()
