"""Features as a step of a user's pipeline."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapes
from checkpoints import save_state_dict, small_vit
from run_cli import ON_LOOPBACK, call

from rayclip.actors.encode_step import EncodeStep
from rayclip.actors.job import ModelJob
from rayclip.errors import UsageError
from rayclip.model.openai import DEFAULT_CUSTOM_WEIGHTS
from rayclip.model.preprocess import Resizing

RAYS_WARNING = "PYTHON worker processes have been started on node"
PROGRAM = """
import sys, time
import ray, ray.data
import rayclip

table, videos, weights, output = sys.argv[1:]
ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
common = {"model_name": "demo", "device": "cpu"}

ds = ray.data.read_parquet(table).filter(lambda row: row["split"] == "train")
ds = rayclip.encode(ds, extraction_fps=5, **common)
other = {"model_name": "custom", "weights": weights, "device": "cpu"}
ds = rayclip.encode(ds, extraction_total=3, prefix="few_", **other)
ds.write_parquet(output)

def content(path):
    with open(path, "rb") as file:
        return file.read()

rows = [{"film": content(f"{videos}/{name}.mp4"), "name": name} for name in ("ab", "ba")]
whole = ray.data.from_items([*rows, {"film": b"no video", "name": "bad"}])
models = {"model_name": ["demo", "custom"], "device": "cpu"}  # CLIP-custom.pth in this folder
encoded = rayclip.encode(whole, bytes_column="film", extraction_fps=5, **models)
sampled = encoded.drop_columns(["film"]).random_sample(1.0).materialize()
same = sampled.map_batches(lambda table: table, batch_format="pyarrow")
same.write_parquet(output + "-bytes")

try:
    rayclip.encode(whole.filter(lambda row: True), **common).materialize()
except Exception as error:
    print("no column:", "has no column 'path'" in str(error))

deadline = time.monotonic() + 60
while ray.available_resources().get("CPU", 0) < ray.cluster_resources()["CPU"]:
    assert time.monotonic() < deadline, "the encoders are not released"
    time.sleep(0.2)
again = sorted(len(row["clip_custom"] or ()) for row in encoded.take_all())
print("a dataset that is used again:", again)
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    red, blue = ("red", "circle"), ("blue", "star")
    for name, scenes in {"ab": [red, blue], "ba": [blue, red], "a": [red]}.items():
        shapes.write_video(folder / f"{name}.mp4", scenes, seconds_per_scene=1)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 48 features for 40 pixels, with random weights."""
    path = tmp_path_factory.mktemp("weights") / DEFAULT_CUSTOM_WEIGHTS
    path.parent.mkdir(parents=True)
    return save_state_dict(small_vit(), path)


@pytest.fixture(scope="module")
def written(
    videos: Path, weights: Path, cluster: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """What the program wrote, and what it printed."""
    folder = tmp_path_factory.mktemp("pipeline")
    paths = [videos / name for name in ("ab.mp4", "ba.mp4", "a.mp4", "nowhere.mp4")]
    table = pa.table(
        {
            "path": [paths[0].as_uri(), *map(str, paths[1:]), None],
            "label": [0, 1, 2, 3, 4],
            "split": ["train", "train", "test", "train", "train"],
        }
    )
    pq.write_table(table, folder / "table.parquet")
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder / "table.parquet", videos, weights, folder / "out"],
        env={**os.environ, **ON_LOOPBACK, "RAY_ADDRESS": cluster},
        cwd=str(weights).removesuffix(DEFAULT_CUSTOM_WEIGHTS),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return folder / "out", ended.stdout


@pytest.mark.ray
def test_two_models_in_one_pipeline_keep_the_columns_and_add_their_own(
    written: tuple[Path, str], videos: Path, weights: Path
) -> None:
    table = pq.read_table(written[0]).sort_by("label")
    numbers = pa.list_(pa.float64())
    added = [
        kind
        for dim in (64, 48)
        for kind in (pa.list_(pa.list_(pa.float32(), dim)), numbers, pa.float64(), pa.string())
    ]
    assert table.column_names[:3] == ["path", "label", "split"]
    assert [column.type for column in table.columns[3:]] == added
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
    few = ["--extraction-total", "3", "--model-name", "custom"]
    by_the_other = by_the_command(videos / "ab.mp4", written[0], *few, "--weights", weights)
    assert rows[0]["few_clip"] == by_the_other


@pytest.mark.ray
def test_encoded_videos_in_a_column_have_the_features_of_their_files_by_each_model(
    written: tuple[Path, str], videos: Path, weights: Path
) -> None:
    table = pq.read_table(f"{written[0]}-bytes")
    added = ["clip_demo", "clip_custom", "timestamps_ms", "fps", "error_demo", "error_custom"]
    assert table.column_names == ["name", *added]
    by_name = {row["name"]: row for row in table.to_pylist()}
    assert by_name.keys() == {"ab", "ba", "bad"}
    bad, ba = by_name["bad"], by_name["ba"]
    assert bad["error_demo"] == bad["error_custom"]
    assert bad["error_demo"].startswith("open/")
    assert {bad[name] for name in added[:4]} == {ba["error_demo"], ba["error_custom"]} == {None}
    assert ba["timestamps_ms"] == [200.0 * tick for tick in range(10)]
    assert ba["clip_demo"] == by_the_command(videos / "ba.mp4", written[0])
    words = ["--extraction-fps", "5", "--model-name", "custom", "--weights", weights]
    assert ba["clip_custom"] == by_the_command(videos / "ba.mp4", written[0], *words)


@pytest.mark.ray
def test_a_pipeline_names_missing_columns_and_starts_its_encoders_again(
    written: tuple[Path, str],
) -> None:
    lines = [line for line in written[1].splitlines() if RAYS_WARNING not in line]
    assert lines == [
        "no column: True",
        "a dataset that is used again: [0, 10, 10]",
    ]


@pytest.mark.ray
def test_the_columns_have_no_private_types(written: tuple[Path, str]) -> None:
    for file in written[0].glob("*.parquet"):
        for field in pq.read_schema(file):
            assert not isinstance(field.type, pa.BaseExtensionType)
            assert b"ARROW:extension:name" not in (field.metadata or {})


@pytest.mark.ray
def test_duckdb_reads_what_a_pipeline_wrote(written: tuple[Path, str], videos: Path) -> None:
    rows = duckdb.read_parquet(f"{written[0]}/*.parquet").order("label")
    counts = rows.project("label, split, len(clip), len(clip[1]), len(few_clip), len(few_clip[1])")
    assert counts.fetchall() == [
        (0, "train", 10, 64, 3, 48),
        (1, "train", 10, 64, 3, 48),
        (3, "train", None, None, None, None),
        (4, "train", None, None, None, None),
    ]
    assert rows.filter("error is not null").project("label").fetchall() == [(3,), (4,)]
    frames = rows.filter("label = 0").project("unnest(timestamps_ms), unnest(clip)").fetchall()
    assert [time for time, _ in frames] == [200.0 * tick for tick in range(10)]
    assert [list(clip) for _, clip in frames] == by_the_command(videos / "ab.mp4", written[0])


@pytest.mark.ray
def test_datasets_reads_what_a_pipeline_wrote(
    written: tuple[Path, str], videos: Path, tmp_path: Path
) -> None:
    files = [str(file) for file in written[0].glob("*.parquet")]
    read = datasets.Dataset.from_parquet(files, cache_dir=str(tmp_path)).sort("label")
    assert read["label"][:] == [0, 1, 3, 4]
    kinds = read.features
    assert (kinds["clip"].feature.length, kinds["few_clip"].feature.length) == (64, 48)
    assert kinds["clip"].feature.feature.dtype == "float32"
    assert kinds["timestamps_ms"].feature.dtype == kinds["fps"].dtype == "float64"
    assert [error is None for error in read["error"]] == [True, True, False, False]
    assert read[0]["clip"] == by_the_command(videos / "ab.mp4", written[0])


def test_missing_and_conflicting_columns_are_named() -> None:
    job = SimpleNamespace(models=[ModelJob(Resizing(8), label="x"), ModelJob(Resizing(8))])
    parts: Any = [job, *[None] * 4]
    step = EncodeStep(*parts, column="path", holds_videos=False, prefix="b32_")
    step.check_columns(["path", "clip"])
    with pytest.raises(UsageError, match="no column 'path'; its columns are: url, label"):
        step.check_columns(["url", "label"])
    with pytest.raises(UsageError, match="already has a column 'b32_error': give encode a prefix"):
        step.check_columns(["path", "b32_error"])
    with pytest.raises(UsageError, match="already has a column 'b32_clip_x'"):
        step.check_columns(["path", "b32_clip_x"])


def by_the_command(video: Path, beside: Path, *words: str | Path) -> list[list[float]]:
    words = words or ("--model-name", "demo", "--extraction-fps", "5")
    model = words[words.index("--model-name") + 1]
    output = beside.parent / f"by-the-command-{video.stem}"
    words += ("--on-extraction", "save_numpy", "--output-path", output, "--address", "none")
    assert call("extract", video, *words).status == 0
    features: list[list[float]] = np.load(output / f"clip/{model}/{video.stem}_clip.npy").tolist()
    return features
