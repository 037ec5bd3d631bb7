"""Reading what is finished in a folder, with what an export and a search need."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import output_folders
import pyarrow as pa
import pytest
import shard_folders
from shard_folders import rows, save

from rayclip.errors import RunStopped
from rayclip.output import spool, stored_arrays
from rayclip.output.finished import iter_features
from rayclip.output.rows import Extraction


def test_a_row_comes_with_its_input_and_the_other_columns_of_the_list(tmp_path: Path) -> None:
    folder = shard_folders.a_run(tmp_path)
    labels = pa.table({"label": ["one", "two", "three"]})
    save(folder, "s3://a/cat.mp4", "b.mp4", "c.mp4", extra_columns=labels)
    videos = {video.name: video for video in iter_features(folder)}
    assert [video.source for video in videos.values()] == ["s3://a/cat.mp4", "b.mp4", "c.mp4"]
    columns = videos["b.mp4"].columns
    assert columns is not None
    assert columns.to_pylist() == [{"label": "two"}]


def test_a_row_alone_in_its_group_is_not_copied(tmp_path: Path) -> None:
    folder = shard_folders.a_run(tmp_path)
    save(folder, "alone.mp4")
    (video,) = iter_features(folder)
    assert not video.clip.flags.owndata
    assert np.array_equal(video.clip, rows("alone.mp4")[0].extraction.clip)


@pytest.mark.parametrize("pickled", [False, True])
def test_large_arrays_are_on_disk_and_outlive_the_iteration(
    pickled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_arrays, "MAX_IN_MEMORY", 100)
    monkeypatch.setattr(stored_arrays, "SLICE", 48)
    monkeypatch.setattr(spool, "SLICE", 48)
    folder = output_folders.a_run(tmp_path, pickled=pickled)
    clip = np.random.default_rng(0).normal(size=(33, output_folders.DIM)).astype(np.float32)
    folder.commit("long", Extraction(clip, np.arange(33.0), 25.0))
    folder.commit("short", Extraction(clip[:2], np.arange(2.0), 25.0))
    long, short = iter_features(folder)
    assert isinstance(long.clip, np.memmap)
    assert not isinstance(short.clip, np.memmap)
    assert np.array_equal(long.clip, clip)
    assert long.source is None


def test_a_full_temporary_folder_is_not_taken_for_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = output_folders.a_run(tmp_path)
    output_folders.commit(folder, "cat", frames=30)
    monkeypatch.setattr(stored_arrays, "MAX_IN_MEMORY", 100)
    full = open("/dev/full", "wb")  # noqa: SIM115
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda prefix: full)
    with pytest.raises(RunStopped, match=r"No space left.*TMPDIR"):
        list(iter_features(folder))
