"""Shards: one row for each video, written once, and readable by any parquet reader."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from shard_folders import DIM, a_run, cut, extraction, rows, save, shards, table, videos

from rayclip.errors import RunStopped, UsageError
from rayclip.io import atomic_write, retry
from rayclip.io.retry import RetryPolicy
from rayclip.media.watchdog import Violation, Watchdog, private_bytes
from rayclip.output import shard_reading, shard_tables, spool
from rayclip.output.rows import Extraction, Row
from rayclip.output.shard_names import refuse_reserved_columns, row_count, row_name, shard_name
from rayclip.output.shards import ShardFolder, shard_damage
from rayclip.output.spool import FeatureSpool

NOT_UTF8 = os.fsdecode(b"caf\xe9.mp4")


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, memory_url: str) -> ShardFolder:
    return a_run(memory_url if request.param == "memory" else tmp_path)


# ---- what is written ----


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_row_has_the_declared_types(tmp_path: Path, dtype: str) -> None:
    folder = a_run(tmp_path, dtype)
    save(folder, "a.mp4", "bb.mp4")
    number = pa.float16() if dtype == "float16" else pa.float32()
    assert table(folder).schema == pa.schema(
        [
            ("video", pa.string()),
            ("clip", pa.list_(pa.list_(number, DIM))),
            ("timestamps_ms", pa.list_(pa.float64())),
            ("fps", pa.float64()),
        ]
    )
    first = table(folder).to_pylist()[0]
    assert first["video"] == "a.mp4"
    np.testing.assert_array_equal(np.array(first["clip"], dtype), extraction(5).clip)
    assert (first["timestamps_ms"], first["fps"]) == ([0.0, 40.0, 80.0, 120.0, 160.0], 25.0)


def test_a_shard_is_named_by_its_task_and_its_rows(folder: ShardFolder) -> None:
    writer = folder.writer(["a", "b", "c"])
    writer.save(rows("a", "b"))
    writer.save(rows("c"))
    names = shards(folder)
    assert len({name.split("-")[0] for name in names}) == 1
    assert sorted(map(row_count, names)) == [1, 2]


def test_the_same_rows_have_the_same_name_and_others_another() -> None:
    """A task that is presumed dead may still write, and must not overwrite shards of others."""
    group = "0" * 16
    assert shard_name(group, ["a", "b"]) == shard_name(group, ["a", "b"])
    others = [["a", "c"], ["b", "a"], ["ab"], ["a\0b"], ["a"]]
    assert len({shard_name(group, names) for names in [["a", "b"], *others]}) == 6


def test_a_name_that_is_not_utf8_is_written_with_escapes(folder: ShardFolder) -> None:
    save(folder, NOT_UTF8)
    assert videos(folder) == [r"caf\xe9.mp4"]
    assert folder.name_of(NOT_UTF8) in folder.done()


def test_extra_columns_are_between_the_video_and_its_features(folder: ShardFolder) -> None:
    extra_columns = pa.table({"label": ["x", "y", "z"], "split": pa.array([1, None, 3], pa.int8())})
    writer = folder.writer(["a", "b", "c"])
    writer.save(rows("a", "c", extra_columns=extra_columns.take([0, 2])))  # b has failed
    made = table(folder)
    assert made.column_names == ["video", "label", "split", "clip", "timestamps_ms", "fps"]
    assert made.schema.field("split").type == pa.int8()
    assert made.select(["video", "label", "split"]).to_pylist() == [
        {"video": "a", "label": "x", "split": 1},
        {"video": "c", "label": "z", "split": 3},
    ]


@pytest.mark.parametrize("column", ["video", "clip", "timestamps_ms", "fps"])
def test_a_reserved_column_is_refused_by_name(column: str) -> None:
    with pytest.raises(UsageError, match=f"has a column '{column}'"):
        refuse_reserved_columns(["label", column])


def test_duplicate_columns_are_refused() -> None:
    with pytest.raises(UsageError, match="has a column 'label'"):
        refuse_reserved_columns(["label", "label"])
    refuse_reserved_columns(["label", "split"])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_features_in_a_temporary_file_give_the_same_rows_as_in_memory(
    tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, disk = a_run(tmp_path / "memory", dtype), a_run(tmp_path / "disk", dtype)
    memory.writer(["a"]).save([Row("a", extraction(50))])
    monkeypatch.setattr(spool, "MAX_IN_MEMORY", 0)
    monkeypatch.setattr(spool, "SLICE", 3 * DIM * 4)
    with FeatureSpool() as spooled:
        spooled.append(extraction(50).clip)
        assert isinstance(spooled.array(), np.memmap)
        disk.writer(["a"]).save([Row("a", extraction(50)._replace(clip=spooled.array()))])
    assert table(disk).equals(table(memory))


def test_row_groups_have_a_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = a_run(tmp_path)
    monkeypatch.setattr(shard_tables, "ROW_GROUP", 6 * DIM * 4)
    name = save(folder, "aaa", "bbb", "c", "dddddddddd", "e")
    groups = pq.ParquetFile(f"{folder.url}/{name}").metadata
    assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [2, 1, 1, 1]
    assert videos(folder) == ["aaa", "bbb", "c", "dddddddddd", "e"]


def test_a_long_row_may_take_more_memory_than_decoding_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_run(tmp_path)
    most = private_bytes() + 64 * 2**20
    found: list[Violation] = []
    watchdog = Watchdog(60.0, max_memory=most, on_violation=found.append)
    monkeypatch.setattr("rayclip.output.shards.LIBAV", watchdog)
    clip = np.zeros((12 * 2**20 // DIM, DIM), np.float32)
    long = Extraction(clip, np.zeros(len(clip)), 25.0)
    try:
        with watchdog.watching("another video"):
            folder.writer(["long"]).save([Row("long", long)])
        assert found == []
        assert private_bytes() < most  # it is returned to the system
    finally:
        watchdog.close()
    assert row_sizes(folder) == {"long": len(clip)}


def row_sizes(folder: ShardFolder) -> dict[str, int]:
    found = table(folder)
    lengths = pc.list_value_length(found.column("clip")).to_pylist()
    return dict(zip(found.column("video").to_pylist(), lengths, strict=True))


# ---- what is done ----


def test_videos_in_a_shard_are_done(folder: ShardFolder) -> None:
    save(folder, "a", "bb")
    save(folder, "ccc")
    done = folder.done()
    assert (len(done), done.frames, done.incomplete) == (3, 6, 0)
    assert "a" in done
    assert "d" not in done


def test_a_video_in_two_shards_counts_once(folder: ShardFolder) -> None:
    save(folder, "a", "b")
    save(folder, "b", "c")
    assert len(folder.done()) == 3


def test_nothing_is_done_in_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    assert len(ShardFolder(str(tmp_path / "nowhere"), DIM, {}).done()) == 0


@pytest.mark.parametrize("left", [0, 3, 100, "all but one"])
def test_a_truncated_shard_is_not_done_and_stale(folder: ShardFolder, left: int | str) -> None:
    save(folder, "a")
    name = save(folder, "b", "c")
    fs, root = folder.fs_and_path()
    content = fs.cat_file(f"{root}/{name}")
    fs.pipe_file(f"{root}/{name}", content[: len(content) - 1 if left == "all but one" else left])
    done = folder.done()
    assert (len(done), done.incomplete, done.stale_tmp) == (1, 1, [name])
    folder.remove(done.stale_tmp)
    assert videos(folder) == ["a"]


def test_other_parquet_files_are_left_alone(folder: ShardFolder) -> None:
    fs, root = folder.fs_and_path()
    fs.pipe_file(f"{root}/mine.parquet", b"not one of ours")
    done = folder.done()
    assert (len(done), done.incomplete, done.stale_tmp) == (0, 0, [])


def test_a_shard_that_another_process_joins_meanwhile_is_found_where_it_is_now(
    folder: ShardFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = save(folder, "a", "b")
    listed = list(folder.files())
    folder.remove([name])
    save(folder, "a", "b", "c")
    done = folder.done(iter(listed))
    assert (len(done), done.incomplete) == (3, 0)


def test_names_are_read_without_the_features(tmp_path: Path) -> None:
    folder = a_run(tmp_path)
    folder.writer(["a"]).save([Row("a", extraction(20_000))])
    name = shards(folder)[0]
    path = Path(folder.url) / name
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)
    assert "a" in folder.done()  # for which nobody reads that far
    trouble = shard_damage(folder, name)
    assert trouble is not None
    assert name in trouble


def test_a_storage_that_fails_for_good_does_not_make_a_shard_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_run(tmp_path)
    save(folder, "a")
    monkeypatch.setattr(retry, "STORAGE", RetryPolicy(2, 60, first_pause_s=0.001))

    def lost(*_: object) -> Any:
        raise ConnectionResetError("gone")

    monkeypatch.setattr(folder, "open", lost)
    with pytest.raises(RunStopped, match=r"cannot be read: gone \(tried 2 times"):
        folder.done()
    assert len(shards(folder)) == 1


# ---- a group that is run again ----


def test_a_retried_task_finds_the_shards_it_wrote(folder: ShardFolder) -> None:
    folder.writer(["a", "bb", "ccc"]).save(rows("a", "bb"))
    save(folder, "ccc")  # by another group
    again = folder.writer(["a", "bb", "ccc"])
    assert [again.saved_before(video) for video in ("a", "bb", "ccc")] == [1, 2, None]


def test_a_retried_task_ignores_a_damaged_shard(folder: ShardFolder) -> None:
    folder.writer(["a"]).save(rows("a"))
    cut(folder, shards(folder)[0])
    assert folder.writer(["a"]).saved_before("a") is None


# ---- writes that fail ----


def test_a_shard_that_cannot_be_written_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_run(tmp_path)

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        save(folder, "a")
    assert sorted(os.listdir(folder.url)) == ["run.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    folder = a_run(tmp_path)

    class Full:
        """Takes some bytes, and no more."""

        def __init__(self, file: Any) -> None:
            self._file = file

        def write(self, content: Any) -> int:
            raise OSError(number, os.strerror(number))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    write = atomic_write._replace
    monkeypatch.setattr(
        atomic_write, "_replace", lambda path, do: write(path, lambda file: do(Full(file)))
    )
    with pytest.raises(RunStopped, match="rerun the same command"):
        save(folder, "a")
    assert sorted(os.listdir(folder.url)) == ["run.json"]


def test_a_transient_write_error_is_retried_with_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_run(tmp_path)
    monkeypatch.setattr(retry, "STORAGE", RetryPolicy(3, 60, first_pause_s=0.001))
    replace, tries = os.replace, []

    def unsteady(*paths: Any) -> None:
        tries.append(paths)
        if len(tries) < 3:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        replace(*paths)

    monkeypatch.setattr(os, "replace", unsteady)
    save(folder, "a", "bb")
    assert len(tries) == 3
    assert videos(folder) == ["a", "bb"]


# ---- what others read ----


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("reader", ["duckdb", "pandas", "polars", "datasets"])
def test_others_read_the_columns_and_their_types(
    tmp_path: Path, reader: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    folder = a_run(tmp_path, dtype)
    save(folder, "a", "bb", extra_columns=pa.table({"label": ["x", "y"]}))
    files = f"{folder.url}/*.parquet"
    number = dtype.capitalize()
    if reader == "duckdb":
        duckdb = pytest.importorskip("duckdb")
        described = duckdb.sql(f"select column_name, column_type from (describe '{files}')")
        kinds = dict(described.fetchall())
        assert kinds == {
            "video": "VARCHAR",
            "label": "VARCHAR",
            "clip": "FLOAT[][]",
            "timestamps_ms": "DOUBLE[]",
            "fps": "DOUBLE",
        }
        found = duckdb.sql(f"select clip from '{files}' order by video")
        clips = [row[0] for row in found.fetchall()]
    elif reader == "pandas":
        pd = pytest.importorskip("pandas")
        frame = pd.concat(map(pd.read_parquet, map(str, Path(folder.url).glob("*.parquet"))))
        assert frame["clip"][1][0].dtype == dtype
        assert frame["timestamps_ms"][1].dtype == "float64"
        clips = [np.stack(clip) for clip in frame["clip"]]
    elif reader == "polars":
        pl = pytest.importorskip("polars")
        frame = pl.read_parquet(files)
        assert frame.schema["clip"] == pl.List(pl.Array(getattr(pl, number), DIM))
        clips = frame["clip"].to_list()
    else:
        datasets = pytest.importorskip("datasets")
        found = datasets.load_dataset("parquet", data_files=files, split="train")
        assert found.features["clip"] == datasets.List(
            datasets.List(datasets.Value(dtype), length=DIM)
        )
        clips = found["clip"]
    for clip, frames in zip(clips, (1, 2), strict=True):
        np.testing.assert_array_equal(np.array(clip, dtype), extraction(frames).clip)


def test_many_shards_are_read_concurrently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = a_run(tmp_path)
    for number in range(4):
        save(folder, f"v{number}")
    together = threading.Barrier(4, timeout=60)
    read_hashes = shard_reading.read_hashes

    def met(shard: pq.ParquetFile) -> Any:
        together.wait()
        return read_hashes(shard)

    monkeypatch.setattr(shard_reading, "read_hashes", met)
    assert len(folder.done()) == 4


def test_the_name_of_a_row_is_the_input_as_it_was_given() -> None:
    assert row_name("s3://bucket/a b?c=d.mp4") == "s3://bucket/a b?c=d.mp4"
    assert row_name("ünï/日本.mp4") == "ünï/日本.mp4"


def test_a_failed_listing_is_not_an_empty_folder(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_run(memory_url)
    save(folder, "a")
    fs, _ = folder.fs_and_path()
    listed, tries = type(fs).ls, []

    def unsteady(self: Any, *path: Any, **how: Any) -> Any:
        tries.append(path)
        if len(tries) < 3:
            raise ConnectionResetError("gone")
        return listed(self, *path, **how)

    monkeypatch.setattr(retry, "STORAGE", RetryPolicy(3, 60, first_pause_s=0.001))
    monkeypatch.setattr(type(fs), "ls", unsteady)
    assert len(folder.done()) == 1
    assert len(tries) == 3
