"""``rayclip.load_features``: saved features can be read back from any format."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from output_folders import DIM, Harm, a_run, commit

import rayclip
from rayclip.output.array_folder import Extraction

FRAMES = 3


def extraction(seed: int, frames: int = FRAMES, dtype: str = "float32") -> Extraction:
    rng = np.random.default_rng(seed)
    clip = rng.normal(size=(frames, DIM)).astype(dtype)
    return Extraction(clip, np.arange(frames) * 200.0 + seed, 24.0 + seed)


def same(loaded: rayclip.VideoFeatures, made: Extraction) -> bool:
    return (
        loaded.clip.dtype == made.clip.dtype
        and np.array_equal(loaded.clip, made.clip)
        and loaded.timestamps_ms.dtype == np.float64
        and np.array_equal(loaded.timestamps_ms, made.timestamps_ms)
        and loaded.fps == made.fps
    )


def a_parquet_run(output: Path, dtype: str = "float32") -> Path:
    """The folder of a run without shards."""
    folder = output / "clip/demo"
    folder.mkdir(parents=True)
    run = {"model_name": "demo", "dim": DIM, "feature_dtype": dtype}
    (folder / "run.json").write_text(json.dumps({**run, "on_extraction": "save_parquet"}))
    return folder


def write_shard(
    path: Path, videos: dict[str, Extraction], dtype: str = "float32", rows_of_a_group: int = 100
) -> None:
    """A shard as runs write them, with a column of the list's."""
    number = pa.float16() if dtype == "float16" else pa.float32()
    features = pa.list_(pa.list_(number, DIM))
    rows = list(videos.values())
    columns = {
        "video": pa.array(videos, pa.string()),
        "label": pa.array(range(len(rows)), pa.int64()),
        "clip": pa.array([list(row.clip) for row in rows], features),
        "timestamps_ms": pa.array([row.timestamps_ms for row in rows], pa.list_(pa.float64())),
        "fps": pa.array([row.fps for row in rows], pa.float64()),
    }
    pq.write_table(pa.table(columns), path, row_group_size=rows_of_a_group)


def named(key: str, rows: int = 1) -> str:
    """Return the name of a shard, given the key of its task."""
    return f"{key if key == 'joined' else key * 16}-{'0' * 16}-{rows}.parquet"


def names(output: str | Path) -> list[str]:
    return [video.video for video in rayclip.load_features(output)]


@pytest.mark.parametrize("pickled", [False, True])
def test_files_come_in_the_order_of_their_names_with_what_was_saved(
    pickled: bool, tmp_path: Path
) -> None:
    folder = a_run(tmp_path, pickled=pickled, naming="path")
    made = {"dog": extraction(1), "b/cat": extraction(2, frames=1), "a_clip": extraction(3)}
    for name, one in made.items():
        folder.commit(name, one)
    loaded = list(rayclip.load_features(tmp_path))
    assert [video.video for video in loaded] == ["a_clip", "b/cat", "dog"]
    assert all(same(video, made[video.video]) for video in loaded)


def test_other_storages_are_read_too(memory_url: str) -> None:
    commit(a_run(memory_url), "cat")
    assert names(memory_url) == ["cat"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("rows_of_a_group", [1, 2, 100])
def test_shards_come_by_their_names_and_rows_with_what_was_saved(
    dtype: str, rows_of_a_group: int, tmp_path: Path
) -> None:
    folder = a_parquet_run(tmp_path, dtype)
    made = {f"s3://videos/{n}.mp4": extraction(n, 1 + n, dtype) for n in range(5)}
    parts = [dict(list(made.items())[:2]), dict(list(made.items())[2:])]
    write_shard(folder / named("b"), parts[0], dtype, rows_of_a_group)
    write_shard(folder / named("a"), parts[1], dtype, rows_of_a_group)
    loaded = list(rayclip.load_features(tmp_path))
    assert [video.video for video in loaded] == [*parts[1], *parts[0]]
    assert all(same(video, made[video.video]) for video in loaded)


def test_a_video_in_two_shards_is_loaded_once(tmp_path: Path) -> None:
    folder = a_parquet_run(tmp_path)
    cat, dog, cow = (extraction(number) for number in range(3))
    write_shard(folder / named("a"), {"cat": cat, "dog": dog})
    write_shard(folder / named("b"), {"dog": dog, "cow": cow})
    assert names(tmp_path) == ["cat", "dog", "cow"]


def test_shards_may_be_joined_while_they_are_read(tmp_path: Path) -> None:
    folder = a_parquet_run(tmp_path)
    made = {name: extraction(number) for number, name in enumerate(("ant", "bee", "cat"))}
    for name, one in made.items():
        write_shard(folder / named(name[0]), {name: one})
    videos = rayclip.load_features(tmp_path)
    assert next(videos).video == "ant"
    write_shard(folder / named("joined", 3), made)
    for name in made:
        (folder / named(name[0])).unlink()
    assert [video.video for video in videos] == ["bee", "cat"]


def test_one_row_group_of_a_shard_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_parquet_run(tmp_path)
    write_shard(folder / named("a"), {str(n): extraction(n) for n in range(6)}, rows_of_a_group=2)
    read: list[int] = []
    read_row_group = pq.ParquetFile.read_row_group

    def tracking(self: pq.ParquetFile, group: int, columns: list[str]) -> pa.Table:
        read.append(group)
        return read_row_group(self, group, columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", tracking)
    videos = rayclip.load_features(tmp_path)
    assert read == []
    assert [next(videos).video for _ in range(3)] == ["0", "1", "2"]
    assert read == [0, 1]


def test_each_video_has_its_own_arrays(tmp_path: Path) -> None:
    a_run(tmp_path / "npy").commit("cat", extraction(1))
    a_run(tmp_path / "pkl", pickled=True).commit("cat", extraction(1))
    write_shard(a_parquet_run(tmp_path / "parquet") / named("a"), {"cat": extraction(1)})
    for output in ("npy", "pkl", "parquet"):
        (video,) = rayclip.load_features(tmp_path / output)
        video.clip[:] = 0
        video.timestamps_ms[:] = 0
        assert video.clip.flags.owndata or video.clip.base.flags.owndata


def test_incomplete_videos_are_skipped(tmp_path: Path) -> None:
    folder = a_run(tmp_path)
    commit(folder, "cat")
    commit(folder, "dog")
    folder.discard(["dog"])
    assert names(tmp_path) == ["cat"]


def test_a_video_that_is_being_recomputed_is_skipped(tmp_path: Path) -> None:
    folder = a_run(tmp_path)
    for name in ("cat", "cow", "dog"):
        commit(folder, name)
    videos = rayclip.load_features(tmp_path)
    next(videos)
    folder.discard(["cow"])
    assert [video.video for video in videos] == ["dog"]


def test_files_in_another_format_than_the_last_runs_are_skipped(tmp_path: Path) -> None:
    commit(a_run(tmp_path), "cat")
    commit(a_run(tmp_path, pickled=True), "dog")
    assert names(tmp_path) == ["dog"]


def test_one_of_several_models_must_be_named(tmp_path: Path) -> None:
    commit(a_run(tmp_path, "demo"), "cat")
    commit(a_run(tmp_path, "ViT-B/32"), "dog")
    (video,) = rayclip.load_features(tmp_path, model_name="ViT-B/32")
    assert video.video == "dog"
    assert names(tmp_path / "clip/ViT-B_32") == ["dog"]
    with pytest.raises(rayclip.UsageError, match=r"\(ViT-B_32, demo\): name one"):
        rayclip.load_features(tmp_path)
    with pytest.raises(rayclip.UsageError, match="no features of RN50; it has those of ViT-B_32"):
        rayclip.load_features(tmp_path, model_name="RN50")


def test_a_folder_without_features_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(rayclip.UsageError, match="name the output_path of a run"):
        rayclip.load_features(tmp_path)


def test_a_damaged_file_is_an_error_that_names_it_and_the_remedy(tmp_path: Path) -> None:
    folder = a_run(tmp_path)
    for name in ("cat", "dog"):
        commit(folder, name)
    (tmp_path / "clip/demo/dog_timestamps_ms.npy").write_bytes(b"no array")
    videos = rayclip.load_features(tmp_path)
    assert next(videos).video == "cat"
    expected = r"clip/demo/dog_timestamps_ms\.npy cannot be loaded: .*header.* status --verify`"
    with pytest.raises(rayclip.RayclipError, match=expected):
        next(videos)


@pytest.mark.parametrize("kept", [0, 3, 200, 0.6, 0.99])
def test_a_damaged_shard_is_an_error_that_names_it(kept: float, tmp_path: Path) -> None:
    shard = a_parquet_run(tmp_path) / named("a")
    write_shard(shard, {"cat": extraction(1, 40)})
    content = shard.read_bytes()
    shard.write_bytes(content[: int(kept if kept >= 1 else kept * len(content))])
    with pytest.raises(rayclip.RayclipError, match=r"demo/a{16}-.*-1\.parquet cannot be loaded: "):
        list(rayclip.load_features(tmp_path))


def test_a_table_of_something_else_is_an_error_that_names_its_columns(tmp_path: Path) -> None:
    folder = a_parquet_run(tmp_path)
    pq.write_table(pa.table({"video": ["cat"]}), folder / named("a"))
    with pytest.raises(rayclip.RayclipError, match="its columns are not video, clip, timest"):
        list(rayclip.load_features(tmp_path))
    write_shard(folder / named("a"), {"cat": extraction(1, dtype="float16")}, "float16")
    with pytest.raises(rayclip.RayclipError, match="of 4 float"):
        list(rayclip.load_features(tmp_path))


def test_a_pickle_that_is_code_is_not_run(tmp_path: Path) -> None:
    commit(a_run(tmp_path, pickled=True), "cat")
    mark = tmp_path / "harm"
    (tmp_path / "clip/demo/cat_clip.pkl").write_bytes(pickle.dumps(Harm(mark)))
    with pytest.raises(rayclip.RayclipError, match="which no array needs"):
        list(rayclip.load_features(tmp_path))
    assert not mark.exists()
