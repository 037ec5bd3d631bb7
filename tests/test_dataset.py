"""Features as a step of a pipeline that somebody else wrote."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapes
from commands import ON_LOOPBACK, call

from rayclip.actors.encode_step import EncodeStep
from rayclip.actors.resources import EncoderResources
from rayclip.errors import UsageError

PROGRAM = """
import sys, time
import numpy as np, pyarrow as pa
import ray, ray.data
import rayclip

table, videos, output = sys.argv[1:]
ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
common = {"model_name": "demo", "device": "cpu"}

ds = ray.data.read_parquet(table).filter(lambda row: row["split"] == "train")
ds = rayclip.encode(ds, extraction_fps=5, **common)
ds = rayclip.encode(ds, extraction_total=3, resize="fast", prefix="few_", **common)
ds.write_parquet(output)

def content(path):
    with open(path, "rb") as file:
        return file.read()

rows = [{"film": content(f"{videos}/{name}.mp4"), "name": name} for name in ("ab", "ba")]
whole = ray.data.from_items([*rows, {"film": b"no video", "name": "bad"}])
encoded = rayclip.encode(whole, bytes_column="film", extraction_fps=5, **common)
encoded.drop_columns(["film"]).random_sample(1.0).write_parquet(output + "-bytes")

urls = ray.data.from_items([{"path": f"file://{videos}/ab.mp4"}])
urls = rayclip.encode(urls, extraction_fps=5, **common)
(batch,) = urls.iter_batches(batch_size=None)
print("from a URL:", np.stack(list(batch["clip"][0])).shape)

try:
    rayclip.encode(whole.filter(lambda row: True), **common).materialize()
except Exception as error:
    print("no column:", "has no column 'path'" in str(error))

deadline = time.monotonic() + 60
while ray.available_resources().get("CPU", 0) < ray.cluster_resources()["CPU"]:
    assert time.monotonic() < deadline, "the encoders are not released"
    time.sleep(0.2)
print("rows of a dataset that is used again:", urls.count())
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    red, blue = ("red", "circle"), ("blue", "star")
    for name, scenes in {"ab": [red, blue], "ba": [blue, red], "a": [red]}.items():
        shapes.write_video(folder / f"{name}.mp4", scenes, seconds_per_scene=1)
    return folder


@pytest.fixture(scope="module")
def written(
    videos: Path, cluster: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """What the program wrote, and what it printed."""
    folder = tmp_path_factory.mktemp("pipeline")
    names = ["ab.mp4", "ba.mp4", "a.mp4", "nowhere.mp4", None]
    table = pa.table(
        {
            "path": [name and str(videos / name) for name in names],
            "label": [0, 1, 2, 3, 4],
            "split": ["train", "train", "test", "train", "train"],
        }
    )
    pq.write_table(table, folder / "table.parquet")
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder / "table.parquet", videos, folder / "out"],
        env={**os.environ, **ON_LOOPBACK, "RAY_ADDRESS": cluster},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return folder / "out", ended.stdout


@pytest.mark.ray
def test_two_models_in_one_pipeline_keep_the_columns_and_add_their_own(
    written: tuple[Path, str], videos: Path
) -> None:
    table = pq.read_table(written[0]).sort_by("label")
    features = pa.list_(pa.list_(pa.float32(), 64))
    numbers = pa.list_(pa.float64())
    added = [features, numbers, pa.float64(), pa.string()]
    assert table.column_names[:3] == ["path", "label", "split"]
    assert [plain(column.type) for column in table.columns[3:]] == [*map(plain, added * 2)]
    assert [name for name in table.column_names if name.startswith("few_")] == [
        "few_clip",
        "few_timestamps_ms",
        "few_fps",
        "few_error",
    ]
    rows = table.to_pylist()
    assert [row["label"] for row in rows] == [0, 1, 3, 4]
    assert [row["clip"] and len(row["clip"]) for row in rows] == [10, 10, None, None]
    assert [row["few_clip"] and len(row["few_clip"]) for row in rows] == [3, 3, None, None]
    assert rows[0]["timestamps_ms"] == [200.0 * tick for tick in range(10)]
    assert rows[0]["error"] is None
    assert rows[2]["error"] == "open/not_found: there is no such file"
    assert rows[3]["few_error"] == "open/no_video: there is no video in this row"
    assert rows[0]["clip"] == by_the_command(videos / "ab.mp4", written[0])


@pytest.mark.ray
def test_whole_videos_in_a_column_give_the_features_of_their_files(
    written: tuple[Path, str], videos: Path
) -> None:
    rows = pq.read_table(f"{written[0]}-bytes").to_pylist()
    by_name = {row["name"]: row for row in rows}
    assert {name: bool(row["clip"]) for name, row in by_name.items()} == {
        "ab": True,
        "ba": True,
        "bad": False,
    }
    assert by_name["bad"]["error"].startswith("open/")
    assert by_name["ba"]["clip"] == by_the_command(videos / "ba.mp4", written[0])


@pytest.mark.ray
def test_a_pipeline_takes_urls_names_missing_columns_and_starts_its_encoders_again(
    written: tuple[Path, str],
) -> None:
    assert written[1].splitlines() == [
        "from a URL: (10, 64)",
        "no column: True",
        "rows of a dataset that is used again: 1",
    ]


@pytest.mark.ray
def test_other_libraries_read_what_a_pipeline_wrote(written: tuple[Path, str]) -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    rows = duckdb.read_parquet(f"{written[0]}/*.parquet").order("label")
    assert rows.project("label, len(clip), len(clip[1]), error is null").fetchall() == [
        (0, 10, 64, True),
        (1, 10, 64, True),
        (3, None, None, False),
        (4, None, None, False),
    ]


def test_steps_of_one_pipeline_share_the_devices() -> None:
    assert EncoderResources(4, 1.0, 0.0, 1.0).shared_by(2) == EncoderResources(4, 0.5, 0.0, 1.0)
    assert EncoderResources(1, 0.0, 6.0, 1.0).shared_by(3) == EncoderResources(1, 0.0, 2.0, 1.0)


def test_columns_that_are_missing_or_in_the_way_are_named() -> None:
    step = EncodeStep(*[None] * 5, column="path", holds_videos=False, prefix="b32_")  # type: ignore[arg-type]
    step.check_columns(["path", "clip"])
    with pytest.raises(UsageError, match="no column 'path'; its columns are: url, label"):
        step.check_columns(["url", "label"])
    with pytest.raises(UsageError, match="a column 'b32_error' already: give encode a prefix"):
        step.check_columns(["path", "b32_error"])


def plain(kind: pa.DataType) -> str:
    """A type without the names that Parquet gives to the items of lists."""
    return str(kind).replace("element: ", "item: ").replace("child_", "")


def by_the_command(video: Path, beside: Path) -> list[list[float]]:
    output = beside.parent / f"by-the-command-{video.stem}"
    words = ["--model-name", "demo", "--extraction-fps", "5", "--on-extraction", "save_numpy"]
    assert call("extract", video, *words, "--output-path", output, "--address", "none").status == 0
    features: list[list[float]] = np.load(output / f"clip/demo/{video.stem}_clip.npy").tolist()
    return features
