"""``rayclip export``: what it writes is what ``load_features`` gives, in any format."""

from __future__ import annotations

import builtins
import json
import os
from pathlib import Path
from typing import Any

import datasets
import duckdb
import h5py
import numpy as np
import pandas
import polars
import pyarrow as pa
import pytest
from output_folders import DIM, commit
from output_folders import a_run as a_run_of_files
from readers import READERS, by_h5py, by_numpy, by_polars, by_webdataset
from run_cli import call
from shard_folders import cut, shards
from sources import KINDS, a_source, contents, extraction, local_copy, pooled, save, saved

from rayclip.export.format import Format
from rayclip.export.npz import NpzFormat
from rayclip.output.rows import Extraction

VIDEOS = {"b/cat.mp4": 7, "dog.mp4": 1, "v.1.mp4": 12, "b/cow.mp4": 3}


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, memory_url: str) -> str:
    return memory_url if request.param == "memory" else str(tmp_path)


@pytest.fixture
def in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Format, NpzFormat):
        monkeypatch.setattr(kind, "part_files", 2)


def export(output: str | Path, target: str | Path, name: str, *words: str) -> str:
    ended = call("export", output, target, "--format", name, *words)
    assert (ended.status, ended.stderr) == (0, "")
    return ended.stdout


def refused(*words: str | Path) -> str:
    ended = call("export", *words)
    assert (ended.status, ended.stdout) == (2, "")
    return ended.stderr


def key(name: str, format_name: str) -> str:
    """The name under which a reader finds a video."""
    return f"{name}.mp4" if format_name in ("frames-parquet", "webdataset") else name


@pytest.mark.usefixtures("in_small_parts")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", READERS)
def test_an_export_holds_what_is_saved(name: str, kind: str, storage: str, tmp_path: Path) -> None:
    output, target = f"{storage}/out", f"{storage}/target"
    folder = a_source(kind, output)
    save(folder, dict(list(VIDEOS.items())[:2]))
    save(folder, dict(list(VIDEOS.items())[2:]))
    said = export(output, target, name, "--naming", "path")
    files = {"npz": 4, "hdf5": 1}.get(name, 1 if kind == "parquet" else 2)
    size = sum(
        len(content)
        for path, content in contents(local_copy(target, tmp_path / "copy")).items()
        if not path.endswith(".json")
    )
    assert said.startswith(f"{target}: 4 videos, 23 rows; {files} file")
    assert f"{size:,} bytes, sizes checked; 4 videos written in" in said
    found = READERS[name](local_copy(target, tmp_path / "copy"))
    expected = saved(output)
    with_suffix = kind == "parquet" and name in ("frames-parquet", "webdataset")
    assert {*found} == {f"{video}.mp4" if with_suffix else video for video in expected}
    for video, (features, timestamps_ms) in found.items():
        one = expected[video.removesuffix(".mp4")]
        assert features.dtype == np.float32
        assert np.array_equal(features, one.clip)
        assert timestamps_ms == one.timestamps_ms.tolist()


@pytest.mark.parametrize("name", READERS)
def test_windows_are_pooled_normalised_and_converted(name: str, tmp_path: Path) -> None:
    folder = a_run_of_files(tmp_path / "out")
    lengths = {"cat": 23, "dog": 3}
    for seed, (video, frames) in enumerate(lengths.items()):
        folder.commit(video, extraction(seed, frames))
    words = ["--window", "8", "--stride", "5", "--pool", "max", "--normalize", "--dtype", "float16"]
    export(tmp_path / "out", tmp_path / "target", name, *words)
    found = READERS[name](tmp_path / "target")
    assert {*found} == {*lengths}
    for video, one in saved(tmp_path / "out").items():
        rows, starts = pooled(one.clip, 8, 5, "max")
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        assert found[video].features.dtype == np.float16
        assert np.array_equal(found[video].features, rows.astype(np.float16))
        assert found[video].timestamps_ms == one.timestamps_ms[starts].tolist()


def test_without_a_window_a_video_is_pooled_into_one_row(tmp_path: Path) -> None:
    folder = a_run_of_files(tmp_path / "out")
    folder.commit("cat", extraction(1, 9))
    assert "1 row;" in export(tmp_path / "out", tmp_path / "target", "npz", "--pool", "mean")
    (one,) = saved(tmp_path / "out").values()
    expected = one.clip.mean(axis=0, dtype=np.float64, keepdims=True).astype(np.float32)
    assert np.array_equal(by_numpy(tmp_path / "target")["cat"].features, expected)


def a_labelled_export(tmp_path: Path) -> str:
    columns = pa.table({"label": ["one", "two"], "frame": [7, None], "list_frame": [[1], [2, 3]]})
    save(a_source("parquet", tmp_path / "out"), {"a/cat.mp4": 3, "dog.mp4": 2}, columns)
    export(tmp_path / "out", tmp_path / "target", "frames-parquet")
    return str(tmp_path / "target/*.parquet")


def test_rows_of_frames_carry_the_columns_of_the_list(tmp_path: Path) -> None:
    files = a_labelled_export(tmp_path)
    expected = [
        (f"{video}.mp4", label, number, one.timestamps_ms[row], one.clip[row].tolist())
        for (video, one), label, number in zip(
            saved(tmp_path / "out").items(), ("one", "two"), (7, None), strict=True
        )
        for row in range(len(one.clip))
    ]
    columns = "video, label, list_list_frame, timestamp_ms, clip"
    assert (
        duckdb.sql(f"select {columns} from '{files}' order by video, frame").fetchall() == expected
    )
    by_frame = polars.read_parquet(files).select(columns.split(", "))
    assert by_frame.schema["clip"] == polars.Array(polars.Float32, DIM)
    assert [(*row[:4], row[4]) for row in by_frame.rows()] == expected
    (path,) = (tmp_path / "target").glob("*.parquet")
    table = pandas.read_parquet(path)
    assert table["frame"].tolist() == [0, 1, 2, 0, 1]
    assert np.array_equal(np.stack(table["clip"]), [row[4] for row in expected])
    loaded = datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.features["clip"] == datasets.List(datasets.Value("float32"), length=DIM)
    assert [row["clip"] for row in loaded] == [row[4] for row in expected]
    assert [row["label"] for row in loaded] == [row[1] for row in expected]


def test_samples_of_webdataset_carry_the_columns_of_the_list(tmp_path: Path) -> None:
    import webdataset

    columns = pa.table({"label": ["one"], "day": pa.array([0], pa.date32()), "share": [np.nan]})
    save(a_source("parquet", tmp_path / "out"), {"a/cat.mp4": 3}, columns)
    export(tmp_path / "out", tmp_path / "target", "webdataset")
    shard = str(tmp_path / "target/shard-000000.tar")
    (sample,) = webdataset.WebDataset(shard, shardshuffle=False).decode()
    (one,) = saved(tmp_path / "out").values()
    assert np.array_equal(sample["npy"], one.clip)
    about = sample["json"]
    assert (sample["__key__"], about["video"]) == ("cat", "a/cat.mp4")
    assert (about["label"], about["day"], about["share"]) == ("one", "1970-01-01", None)


def test_a_group_says_which_input_it_is(tmp_path: Path) -> None:
    save(a_source("parquet", tmp_path / "out"), {"s3://bucket/a/cat.mp4": 3})
    export(tmp_path / "out", tmp_path / "target", "hdf5")
    with h5py.File(tmp_path / "target/features.h5") as file:
        assert file["cat"].attrs["video"] == "s3://bucket/a/cat.mp4"


def test_a_video_in_two_shards_is_exported_once(tmp_path: Path) -> None:
    folder = a_source("parquet", tmp_path / "out")
    save(folder, {"a.mp4": 2, "b.mp4": 3})
    save(folder, {"b.mp4": 3, "c.mp4": 4})
    assert "3 videos, 9 rows" in export(tmp_path / "out", tmp_path / "target", "frames-parquet")
    assert sorted(by_polars(tmp_path / "target")) == ["a.mp4", "b.mp4", "c.mp4"]


def test_shards_with_other_columns_are_exported_to_other_files(tmp_path: Path) -> None:
    folder = a_source("parquet", tmp_path / "out")
    save(folder, {"a.mp4": 2}, pa.table({"label": ["one"]}))
    save(folder, {"b.mp4": 3}, pa.table({"label": [2]}))
    export(tmp_path / "out", tmp_path / "target", "frames-parquet")
    labels = {
        pandas.read_parquet(path)["label"][0] for path in (tmp_path / "target").glob("*.parquet")
    }
    assert labels == {"one", 2}


def test_two_inputs_of_one_name_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    save(a_source("parquet", tmp_path / "out"), {"a/cat.mp4": 2, "b/cat.mp4": 3})
    words = (tmp_path / "out", tmp_path / "target", "--format", "npz")
    assert "a/cat.mp4 and b/cat.mp4 would both be named cat: give --naming path." in refused(*words)
    assert not (tmp_path / "target").exists()
    export(tmp_path / "out", tmp_path / "target", "npz", "--naming", "path")
    assert sorted(by_numpy(tmp_path / "target")) == ["a/cat", "b/cat"]
    export(tmp_path / "out", tmp_path / "frames", "frames-parquet")  # has no names of files
    assert sorted(by_polars(tmp_path / "frames")) == ["a/cat.mp4", "b/cat.mp4"]


def test_a_group_inside_the_arrays_of_another_is_one_sentence(tmp_path: Path) -> None:
    save(a_source("npy", tmp_path / "out"), {"cat.mp4": 2, "cat/features.mp4": 3})
    ended = call("export", tmp_path / "out", tmp_path / "target", "--format", "hdf5")
    assert ended.status == 3
    assert "cat/features cannot be a group" in ended.stderr
    assert not (tmp_path / "target/features.h5").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--format", "csv"], "format is 'csv', and must be one of npz, hdf5, frames-parquet, web"),
        (["--format", "npz", "--pool", "sum"], "pool is 'sum', and must be one of mean, max"),
        (["--format", "npz", "--dtype", "int8"], "dtype is 'int8', and must be one of float32"),
        (["--format", "npz", "--naming", "x"], "naming is 'x', and must be one of stem, path"),
        (["--format", "npz", "--window", "0"], "window is 0, and must be at least 1"),
        (["--format", "npz", "--stride", "2"], "stride is the distance of windows: give window"),
        (["--format", "npz", "--model-name", "RN50"], "no features of RN50; it has those of demo"),
    ],
)
def test_a_wrong_option_is_one_sentence(words: list[str], sentence: str, tmp_path: Path) -> None:
    commit(a_run_of_files(tmp_path / "out"), "cat")
    assert sentence in refused(tmp_path / "out", tmp_path / "target", *words)
    assert not (tmp_path / "target").exists()


def test_without_h5py_the_command_to_install_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(a_run_of_files(tmp_path / "out"), "cat")
    real_import = builtins.__import__

    def without_h5py(name: str, *rest: Any) -> Any:
        if name == "h5py":
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_h5py)
    said = refused(tmp_path / "out", tmp_path / "target", "--format", "hdf5")
    assert "needs a package that is missing: pip install 'rayclip[hdf5]'." in said


@pytest.mark.parametrize("name", READERS)
def test_a_number_beyond_float16_is_one_sentence_and_leaves_no_file(
    name: str, tmp_path: Path
) -> None:
    clip = np.full((2, DIM), 1e6, np.float32)
    a_run_of_files(tmp_path / "out").commit("cat", Extraction(clip, np.arange(2.0), 25.0))
    words = ["--format", name, "--dtype", "float16"]
    ended = call("export", tmp_path / "out", tmp_path / "target", *words)
    assert ended.status == 1
    assert "A feature of cat is beyond what float16 holds: export float32." in ended.stderr
    assert {*contents(tmp_path / "target")} == {"export.json"}


@pytest.mark.parametrize("name", ["npz", "webdataset"])
def test_a_damaged_file_is_named_and_no_part_of_it_is_exported(name: str, tmp_path: Path) -> None:
    folder = a_run_of_files(tmp_path / "out")
    commit(folder, "cat")
    (tmp_path / "out/clip/demo/cat_timestamps_ms.npy").write_bytes(b"no array")
    ended = call("export", tmp_path / "out", tmp_path / "target", "--format", name)
    assert ended.status == 1
    assert "cat_timestamps_ms.npy cannot be loaded: its header" in ended.stderr
    assert {*contents(tmp_path / "target")} == {"export.json"}


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    folder = a_source("parquet", tmp_path / "out")
    save(folder, {"cat.mp4": 2})
    cut(folder, shards(folder)[0])
    ended = call("export", tmp_path / "out", tmp_path / "target", "--format", "npz")
    assert ended.status == 1
    assert f"{shards(folder)[0]} cannot be loaded" in ended.stderr


def test_the_export_says_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(a_run_of_files(tmp_path / "out"), "cat")
    monkeypatch.chdir(tmp_path)
    export("out", "target", "npz", "--window", "2")
    record = json.loads((tmp_path / "target/export.json").read_text())
    assert record["source"] == str(tmp_path / "out/clip/demo")
    assert (record["format"], record["window"], record["stride"]) == ("npz", 2, 2)
    assert (record["dtype"], record["model_name"]) == ("float32", "demo")


def test_names_that_cannot_be_keys_of_samples_stay_different(tmp_path: Path) -> None:
    folder = a_run_of_files(tmp_path / "out")
    for name in ("v.1", "v_1", "v.1.2"):
        commit(folder, name)
    export(tmp_path / "out", tmp_path / "target", "webdataset")
    assert sorted(by_webdataset(tmp_path / "target")) == ["v.1", "v.1.2", "v_1"]
    export(tmp_path / "out", tmp_path / "hdf5", "hdf5")
    assert sorted(by_h5py(tmp_path / "hdf5")) == ["v.1", "v.1.2", "v_1"]


@pytest.mark.parametrize("name", READERS)
def test_names_that_are_not_utf8_are_exported(name: str, tmp_path: Path) -> None:
    video = os.fsdecode(b"caf\xe9")
    commit(a_run_of_files(tmp_path / "out"), video)
    export(tmp_path / "out", tmp_path / "target", name)
    assert "0 videos written" in export(tmp_path / "out", tmp_path / "target", name)
    (found,) = READERS[name](tmp_path / "target")
    if name == "hdf5":
        assert found.startswith("caf_~")
        with h5py.File(tmp_path / "target/features.h5") as file:
            assert file[found].attrs["video"] == "caf\\xe9"
    else:
        assert found == (video if name == "npz" else "caf\\xe9")
