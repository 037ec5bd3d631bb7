"""``--on-extraction save_parquet`` as a user gives it, without Ray."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import shapes
from run_cli import Finished, call, rayclip, wait_until

COPIES = 6
KILLED_WHILE_IT_WRITES = """
import os, sys
import pyarrow.parquet as pq

put = pq.ParquetWriter.write_table

def write_table(self, *table, **how):
    put(self, *table, **how)
    write_table.written += 1
    if write_table.written == 5:  # when others are whole
        os.kill(os.getppid(), 9)
        os.kill(os.getpid(), 9)

write_table.written = 0
pq.ParquetWriter.write_table = write_table
"""
"""Kills a command in whose worker process it is, and the worker process with it."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / f"clip_{number}.mp4" for number in range(COPIES)]
    for number, path in enumerate(paths):
        shapes.write_video(path, [("red", "circle")], seconds_per_scene=0.2 + 0.1 * number)
    return paths


def words(clips: list[Path], output: Path | str, kind: str = "save_parquet") -> list[str | Path]:
    given: list[str | Path] = ["extract", *clips, "--model-name", "demo", "--address", "none"]
    return [*given, "--on-extraction", kind, "--output-path", output]


def run(clips: list[Path], output: Path | str, *more: str | Path) -> Finished:
    return call(*words(clips, output), *more)


def shards(output: Path) -> list[Path]:
    return sorted(output.glob("clip/demo/*.parquet"))


def rows(output: Path) -> dict[str, tuple[object, ...]]:
    """The bytes of each row, by the video's name; none is there twice."""
    found = [row for path in shards(output) for row in pq.read_table(path).to_pylist()]
    assert len({row["video"] for row in found}) == len(found), "a video is there twice"
    return {
        row["video"]: (
            np.array(row["clip"], np.float32).tobytes(),
            row["timestamps_ms"],
            row["fps"],
        )
        for row in found
    }


@pytest.fixture(scope="module")
def undisturbed(
    clips: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[object, ...]]:
    output = tmp_path_factory.mktemp("undisturbed")
    ended = run(clips, output)
    assert ended.status == 0, ended.stderr
    return rows(output)


def test_features_are_those_of_save_numpy(
    clips: list[Path], undisturbed: dict[str, tuple[object, ...]], tmp_path: Path
) -> None:
    assert call(*words(clips, tmp_path, "save_numpy")).status == 0
    assert sorted(undisturbed) == sorted(map(str, clips))
    for clip in clips:
        features, times, fps = undisturbed[str(clip)]
        base = tmp_path / "clip" / "demo" / clip.stem
        assert np.load(f"{base}_clip.npy").tobytes() == features
        assert np.load(f"{base}_timestamps_ms.npy").tolist() == times
        assert np.load(f"{base}_fps.npy") == fps


def test_a_run_killed_during_a_shard_resumes(
    clips: list[Path], undisturbed: dict[str, tuple[object, ...]], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(KILLED_WHILE_IT_WRITES)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ended = rayclip(*words(clips, tmp_path), env={"PYTHONPATH": path})
    assert ended.status == -9, ended.stderr
    kept = {path: path.stat().st_mtime_ns for path in shards(tmp_path)}
    assert 0 < len(kept) < COPIES
    left = [path.name for path in tmp_path.glob("clip/demo/.*.tmp")]
    (worker,) = {int(str(name).split(".")[-3]) for name in left}
    wait_until(lambda: not psutil.pid_exists(worker), "the end of the worker process")
    again = run(clips, tmp_path)
    assert again.status == 0, again.stderr
    assert f"{COPIES - len(kept)} done, {len(kept)} done before" in again.stderr
    assert rows(tmp_path) == undisturbed
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert not list(tmp_path.glob("clip/demo/.*.tmp"))


def test_a_truncated_shard_is_reported_and_recomputed(
    clips: list[Path], undisturbed: dict[str, tuple[object, ...]], tmp_path: Path
) -> None:
    run(clips[:2], tmp_path)
    damaged, _ = shards(tmp_path)
    run(clips[:4], tmp_path)
    os.truncate(damaged, damaged.stat().st_size - 10)
    status = call("status", tmp_path, "--verify")
    assert status.status == 1
    assert "incomplete 1 shard" in status.stdout
    assert f"damaged    {damaged}" in status.stdout
    ended = run(clips, tmp_path)
    assert ended.status == 0, ended.stderr
    assert "incomplete, so not counted as done: 1 shard(s)" in ended.stderr
    assert "3 done, 3 done before" in ended.stderr
    assert rows(tmp_path) == undisturbed
    status = call("status", tmp_path, *clips, "--verify")
    assert status.status == 0, status.stdout
    assert f"{COPIES} videos opened, 0 damaged" in status.stdout
    assert f"left       0 of {COPIES} videos" in status.stdout


def test_two_inputs_of_one_stem_are_two_rows(clips: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / clips[0].name
    other.parent.mkdir()
    other.write_bytes(clips[1].read_bytes())
    assert run([clips[0], other], tmp_path / "out").status == 0
    assert sorted(rows(tmp_path / "out")) == sorted([str(clips[0]), str(other)])


def test_failed_videos_are_in_the_list_and_not_in_a_shard(
    clips: list[Path], tmp_path: Path
) -> None:
    missing = tmp_path / "missing.mp4"
    assert run([clips[0], missing], tmp_path / "out").status == 1
    assert list(rows(tmp_path / "out")) == [str(clips[0])]
    assert call("failures", tmp_path / "out").stdout == f"{missing}\n"
    missing.write_bytes(clips[1].read_bytes())
    assert run([clips[0], missing], tmp_path / "out").status == 0
    assert call("failures", tmp_path / "out").stdout == ""
    assert len(rows(tmp_path / "out")) == 2


def test_a_folder_has_one_format(clips: list[Path], tmp_path: Path) -> None:
    run(clips[:1], tmp_path / "rows")
    call(*words(clips[:1], tmp_path / "files", "save_numpy"))
    for folder, kind in (("rows", "save_numpy"), ("files", "save_parquet")):
        for overwrite in ([], ["--overwrite"]):
            ended = call(*words(clips, tmp_path / folder, kind), *overwrite)
            assert (ended.status, len(ended.stderr.splitlines())) == (2, 1), ended.stderr
            assert "holds features in another form" in ended.stderr


def test_other_settings_are_refused_by_name(clips: list[Path], tmp_path: Path) -> None:
    run(clips[:1], tmp_path)
    ended = run(clips, tmp_path, "--feature-dtype", "float16")
    assert ended.status == 2
    assert "feature_dtype=float32 (now float16)" in ended.stderr


def test_overwrite_removes_all_shards_or_is_refused(clips: list[Path], tmp_path: Path) -> None:
    run(clips[:3], tmp_path)
    before = shards(tmp_path)
    ended = run(clips[:2], tmp_path, "--overwrite")
    assert (ended.status, len(ended.stderr.splitlines())) == (2, 1), ended.stderr
    assert "holds other videos (1) in the shards" in ended.stderr
    assert shards(tmp_path) == before
    ended = run(clips[:4], tmp_path, "--overwrite", "--feature-dtype", "float16")
    assert ended.status == 0, ended.stderr
    assert len(rows(tmp_path)) == 4
    kinds = {pq.read_schema(path).field("clip").type for path in shards(tmp_path)}
    assert len(kinds) == 1


def test_naming_by_path_is_refused_since_rows_have_no_files(
    clips: list[Path], tmp_path: Path
) -> None:
    ended = run(clips, tmp_path, "--naming", "path")
    assert (ended.status, len(ended.stderr.splitlines())) == (2, 1)
    assert "naming path is only for formats with files per video" in ended.stderr
    assert not list(tmp_path.iterdir())


def test_predictions_are_columns_with_what_is_in_the_csv_files(
    clips: list[Path], tmp_path: Path
) -> None:
    texts = ["--show-pred", "--pred-texts", "[a red circle, a blue star]"]
    ended = run(clips[:2], tmp_path / "rows", *texts)
    assert ended.status == 0, ended.stderr
    call(*words(clips[:2], tmp_path / "files", "save_numpy"), *texts)
    table = pa.concat_tables([pq.read_table(shard) for shard in shards(tmp_path / "rows")])
    assert table.schema.names[-2:] == ["pred_labels", "pred_probs"]
    assert table.num_rows == 2
    for row in table.to_pylist():
        name = Path(row["video"]).stem
        content = (tmp_path / f"files/clip/demo/{name}_pred.csv").read_text()
        lines = [line.split(",") for line in content.splitlines()[1:]]
        labels = [text for frame in row["pred_labels"] for text in frame]
        assert labels == [label.strip('"') for _, _, label, _, _ in lines]
        assert len(row["pred_labels"]) == len(row["pred_probs"]) == len(row["timestamps_ms"])
        probabilities = [number for frame in row["pred_probs"] for number in frame]
        assert probabilities == [float(line[4]) for line in lines]
    ended = call("status", tmp_path / "rows", "--verify")
    assert (ended.status, "2 videos opened, 0 damaged" in ended.stdout) == (0, True)


def test_reencoded_videos_can_be_kept_with_rows(clips: list[Path], tmp_path: Path) -> None:
    tmp = tmp_path / "tmp"
    ended = run(
        clips[:2], tmp_path / "out", "--keep-tmp-files", "--extraction-fps", "5",
        "--tmp-path", tmp, "--naming", "path",
    )  # fmt: skip
    assert ended.status == 0, ended.stderr
    assert len(list(tmp.rglob("*_new_fps.mp4"))) == 2
    assert len(rows(tmp_path / "out")) == 2


def test_in_memory_storages_take_shards(clips: list[Path], memory_url: str) -> None:
    assert run(clips[:2], memory_url).status == 0
    ended = run(clips[:3], memory_url)
    assert "1 done, 2 done before" in ended.stderr
    assert "3 videos" in call("compact", memory_url).stdout
    assert "3 done before" in run(clips[:3], memory_url).stderr


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_extra_columns_are_copied_and_null_for_arguments(
    clips: list[Path], tmp_path: Path, suffix: str
) -> None:
    listed = tmp_path / f"videos{suffix}"
    names = [str(clip) for clip in clips[1:]]
    table = pa.table({"label": list(range(len(names))), "url": names, "note": ["x"] * len(names)})
    if suffix == ".parquet":
        pq.write_table(table, listed)
    elif suffix == ".csv":
        pa.csv.write_csv(table, listed)
    else:
        listed.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    given = ["--file-with-video-paths", listed, "--path-column", "url"]
    ended = call(*words(clips[:1], tmp_path / "out"), *given)
    assert ended.status == 0, ended.stderr
    made = pa.concat_tables(map(pq.read_table, (tmp_path / "out").rglob("*.parquet")))
    assert made.column_names == ["video", "label", "note", "clip", "timestamps_ms", "fps"]
    assert made.schema.field("label").type == (pa.string() if suffix == ".csv" else pa.int64())
    found = {
        row["video"]: (row["label"], row["note"]) for row in made.select([0, 1, 2]).to_pylist()
    }
    number = str if suffix == ".csv" else int
    beside = {name: (number(label), "x") for label, name in enumerate(names)}
    assert found == {str(clips[0]): (None, None), **beside}


def test_invalid_extra_columns_are_refused_before_anything_is_written(
    clips: list[Path], tmp_path: Path
) -> None:
    listed = tmp_path / "videos.csv"
    listed.write_text(f"path,clip\n{clips[0]},1\n")
    ended = call(*words([], tmp_path / "out"), "--file-with-video-paths", listed)
    assert ended.status == 2, ended.stderr
    assert "has a column 'clip', which save_parquet cannot copy" in ended.stderr
    assert not (tmp_path / "out").exists()
