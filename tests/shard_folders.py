"""Shards as runs leave them, without any run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rayclip.output.array_folder import model_folder
from rayclip.output.folder import FeatureFolder
from rayclip.output.rows import Extraction, Row
from rayclip.output.shards import ShardFolder

DIM = 4


def a_run(output: str | Path, dtype: str = "float32") -> ShardFolder:
    """A folder as a run has begun it."""
    folder = ShardFolder(model_folder(str(output), "demo"), DIM, {}, dtype)
    folder.prepare()
    record = {"model_name": "demo", "dim": DIM, "feature_dtype": dtype, "naming": "stem"}
    folder.write_run({**record, "on_extraction": "save_parquet"})
    return folder


def extraction(frames: int, start: float = 0.0) -> Extraction:
    clip = start + np.arange(frames * DIM, dtype=np.float32).reshape(frames, DIM) / 8
    return Extraction(clip, np.arange(frames, dtype=np.float64) * 40, 25.0)


def rows(*videos: str, extra_columns: pa.Table | None = None) -> list[Row]:
    """Of each video, as many frames as its name is long."""
    return [
        Row(
            video,
            extraction(len(video)),
            columns=None if extra_columns is None else extra_columns.slice(number, 1),
        )
        for number, video in enumerate(videos)
    ]


def save(folder: ShardFolder, *videos: str, extra_columns: pa.Table | None = None) -> str:
    """Put a shard of a group of its own; its name."""
    before = {*shards(folder)}
    folder.writer(videos).save(rows(*videos, extra_columns=extra_columns))
    (made,) = {*shards(folder)} - before
    return made


def shards(folder: FeatureFolder) -> list[str]:
    return sorted(file.path for file in folder.files() if file.path.endswith(".parquet"))


def table(folder: FeatureFolder) -> pa.Table:
    """Everything in the shards, as any reader would see it."""
    fs, root = folder.fs_and_path()
    return pa.concat_tables(
        [pq.read_table(fs.open(f"{root}/{name}")) for name in shards(folder)],
        promote_options="default",
    )


def videos(folder: FeatureFolder) -> list[str]:
    return sorted(table(folder).column("video").to_pylist()) if shards(folder) else []


def cut(folder: FeatureFolder, name: str, by: int = 100) -> None:
    """Leave a shard without its last bytes."""
    fs, root = folder.fs_and_path()
    fs.pipe_file(f"{root}/{name}", fs.cat_file(f"{root}/{name}")[:-by])


def names_of(run: Sequence[Any]) -> list[str]:
    return [result.video for result in run]


def exists(url: str) -> bool:
    fs, path = fsspec.core.url_to_fs(url)
    return bool(fs.exists(path))
