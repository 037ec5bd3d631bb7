"""Rows of a table that are parts of videos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_cli import call
from video_factories import numbered_frames, write_video

from rayclip.errors import UsageError
from rayclip.inputs.videos import absolute, iter_rows, iter_videos, range_columns
from rayclip.media.fragments import VideoPart, parse_part
from rayclip.output.safe_names import output_name
from rayclip.settings import Settings

STARTS: list[Any] = [5.0, 0.1, None, float("nan"), 12.3456789, 1e9, 3]
ENDS: list[Any] = [6, None, 8, None, 20.25, None, 2]
PARTS = [
    "a.mp4#t=5,6",
    "a.mp4#t=0.1",
    "a.mp4#t=,8",
    "a.mp4",
    "a.mp4#t=12.345679,20.25",
    "a.mp4#t=1000000000",
    "a.mp4#t=3,2",
]


def table(folder: Path, name: str, **columns: Any) -> str:
    """Write a table with these columns beside the paths, in the format of its suffix."""
    path = folder / name
    rows = [
        {"path": "a.mp4", **dict(zip(columns, values, strict=True))}
        for values in zip(*columns.values(), strict=True)
    ]
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"path": ["a.mp4"] * len(rows), **columns}), path)
    elif path.suffix == ".jsonl":  # JSON has no NaN
        lines = [{key: v for key, v in row.items() if v is not None and v == v} for row in rows]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        lines = [",".join("" if v is None else str(v) for v in row.values()) for row in rows]
        path.write_text("\n".join([",".join(["path", *columns]), *lines, ""]))
    return str(path)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_each_row_is_a_part_of_its_video(tmp_path: Path, suffix: str) -> None:
    listed = table(tmp_path, f"clips.{suffix}", start_s=STARTS, end_s=ENDS, caption=list("abcdefg"))
    settings = Settings(file_with_video_paths=listed)
    assert list(iter_videos(settings)) == PARTS
    rows = pa.concat_tables(iter_rows(settings, extra_columns=True))
    assert [name.decode() for name in rows["video"].to_pylist()] == PARTS
    assert rows.column_names == ["video", "start_s", "end_s", "caption"]
    assert range_columns(settings) == ["start_s", "end_s"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_ranges_can_be_ignored(tmp_path: Path, suffix: str) -> None:
    listed = table(tmp_path, f"clips.{suffix}", start_s=[1.5, 2], end_s=["x", "y"])
    settings = Settings(file_with_video_paths=listed, ignore_ranges=True)
    assert list(iter_videos(settings)) == ["a.mp4", "a.mp4"]
    rows = pa.concat_tables(iter_rows(settings, extra_columns=True))
    assert rows["end_s"].to_pylist() == ["x", "y"]
    assert range_columns(settings) == []


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_one_of_the_columns_is_enough(tmp_path: Path, suffix: str) -> None:
    listed = table(tmp_path, f"clips.{suffix}", end_s=[1.5, None])
    settings = Settings(file_with_video_paths=listed)
    assert list(iter_videos(settings)) == ["a.mp4#t=,1.5", "a.mp4"]
    assert range_columns(settings) == ["end_s"]


def test_keys_that_the_first_line_lacks_count(tmp_path: Path) -> None:
    path = tmp_path / "clips.jsonl"
    path.write_text('{"path": "a.mp4"}\n{"path": "a.mp4", "start_s": 2}\n')
    settings = Settings(file_with_video_paths=str(path))
    assert list(iter_videos(settings)) == ["a.mp4", "a.mp4#t=2"]
    assert range_columns(settings) == ["start_s"]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([0.1], pa.float32()),
        pa.array([0.1], pa.float64()),
        pa.array(["0.10"], pa.large_string()),
        pa.array([" 0.1 "]),
    ],
)
def test_a_time_has_one_spelling(tmp_path: Path, values: pa.Array) -> None:
    listed = table(tmp_path, "clips.parquet", start_s=values)
    assert list(iter_videos(Settings(file_with_video_paths=listed))) == ["a.mp4#t=0.1"]


@pytest.mark.parametrize(
    "values",
    [["soon"], [-1.0], [float("inf")], [True], [1e10], [["1"]]],
)
def test_what_is_no_time_is_refused_in_one_sentence(tmp_path: Path, values: list[Any]) -> None:
    listed = table(tmp_path, "clips.parquet", start_s=values)
    sentence = r"'start_s' of .* no times in seconds .*ignore_ranges"
    with pytest.raises(UsageError, match=sentence) as caught:
        list(iter_videos(Settings(file_with_video_paths=listed)))
    assert "\n" not in str(caught.value)


# ---- parts as inputs ----


@pytest.mark.parametrize(
    ("video", "part", "name"),
    [
        ("v/a.mp4", VideoPart("v/a.mp4"), "a"),
        ("v/a.mp4#t=5,12.5", VideoPart("v/a.mp4", 5, 12.5), "a_5-12.5"),
        ("v/a.mp4#t=5.0,12.50", VideoPart("v/a.mp4", 5, 12.5), "a_5-12.5"),
        ("v/a.mp4#t=5", VideoPart("v/a.mp4", 5), "a_5-end"),
        ("v/a.mp4#t=,5", VideoPart("v/a.mp4", None, 5), "a_0-5"),
        ("s3://b/v/a.b.mp4#t=1,2", VideoPart("s3://b/v/a.b.mp4", 1, 2), "a.b_1-2"),
        ("v/take#t=1.mp4", VideoPart("v/take#t=1.mp4"), "take#t=1"),
        ("v/a.mp4#t=", VideoPart("v/a.mp4#t="), "a"),
        ("v/a.mp4#t=-1,2", VideoPart("v/a.mp4#t=-1,2"), "a"),
    ],
)
def test_a_part_has_a_name_of_its_own(video: str, part: VideoPart, name: str) -> None:
    assert parse_part(video) == part
    assert output_name(video, "stem") == name
    folders = "s3/b/v" if "://" in video else "v"
    assert output_name(video, "path") == f"{folders}/{name}"
    assert absolute(video, "/here") == (part.path if "://" in video else f"/here/{part.path}")


# ---- runs ----

DEMO = ("--model-name", "demo", "--address", "none", "--device", "cpu")


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table with two parts of a video of two seconds, and one beyond its end."""
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4", numbered_frames(20), fps=10)
    return Path(
        table(tmp_path, "clips.csv", start_s=[0.5, 1, 9], end_s=[1.5, None, None], text=list("xyz"))
    )


def test_a_run_says_first_that_rows_are_parts_and_saves_each_by_its_own_name(clips: Path) -> None:
    extract = ("extract", "--file-with-video-paths", clips, *DEMO, "--extraction-fps", "4")
    saving = ("--on-extraction", "save_numpy", "--output-path", "out")
    done = call(*extract, *saving)
    assert done.status == 1
    assert done.stderr.splitlines()[0] == (
        f"{clips} has start_s and end_s: each row is that part of its video "
        "(--ignore-ranges extracts whole videos)"
    )
    saved = {path.name for path in Path("out/clip/demo").glob("*_clip.npy")}
    assert saved == {"a_0.5-1.5_clip.npy", "a_1-end_clip.npy"}
    times = np.load("out/clip/demo/a_0.5-1.5_timestamps_ms.npy")
    assert times.tolist() == [500, 750, 1000, 1250]
    failed = call("failures", "out")
    assert failed.stdout == "a.mp4#t=9\n"
    retry = ("extract", "--file-with-video-paths", "-", *extract[3:])
    again = call(*retry, *saving, stdin=failed.stdout)
    assert "a.mp4#t=9: decode/empty_range" in again.stderr
    counts = call("status", "out", "--file-with-video-paths", clips)
    assert "0 of 3 videos listed" in counts.stdout
    whole = call(*extract, *saving, "--ignore-ranges")
    assert whole.status == 0
    assert Path("out/clip/demo/a_clip.npy").exists()


def test_a_shard_has_a_row_for_each_part_with_its_columns(clips: Path) -> None:
    saving = ("--on-extraction", "save_parquet", "--output-path", "out")
    call("extract", "--file-with-video-paths", clips, *DEMO, "--extraction-fps", "4", *saving)
    shards = [pq.read_table(path) for path in Path("out/clip/demo").glob("*.parquet")]
    rows = pa.concat_tables(shards).to_pylist()
    assert {(row["video"], row["start_s"], row["end_s"], row["text"]) for row in rows} == {
        ("a.mp4#t=0.5,1.5", "0.5", "1.5", "x"),
        ("a.mp4#t=1", "1", "", "y"),
    }
