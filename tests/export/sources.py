"""Output folders to be exported, and what an export of them has to hold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import output_folders
import pyarrow as pa
import shard_folders
from numpy.typing import NDArray

import rayclip
from rayclip.output.folder import FeatureFolder
from rayclip.output.rows import Extraction, Row

KINDS = ("npy", "pkl", "parquet")


def extraction(seed: int, frames: int, dtype: str = "float32") -> Extraction:
    clip = np.random.default_rng(seed).normal(size=(frames, output_folders.DIM)).astype(dtype)
    return Extraction(clip, np.arange(frames) * 200.0 + seed, 25.0)


def a_source(kind: str, output: str | Path) -> FeatureFolder:
    """A folder as a run has begun it: ``npy``, ``pkl`` or ``parquet``."""
    if kind == "parquet":
        return shard_folders.a_run(output)
    return output_folders.a_run(output, naming="path", pickled=kind == "pkl")


def save(folder: FeatureFolder, lengths: dict[str, int], columns: pa.Table | None = None) -> None:
    """Save videos of this many frames, as one task does."""
    rows = [
        Row(
            video,
            extraction(len(video) + frames, frames),
            columns=None if columns is None else columns.slice(number, 1),
        )
        for number, (video, frames) in enumerate(lengths.items())
    ]
    folder.writer(list(lengths)).save(rows)


def saved(output: str | Path) -> dict[str, rayclip.VideoFeatures]:
    """What is saved, by the name of the video without its suffix."""
    return {
        os.path.splitext(video.video)[0] if video.video.endswith(".mp4") else video.video: video
        for video in rayclip.load_features(output)
    }


def local_copy(url: str, folder: Path) -> Path:
    """A target on any storage as a local folder."""
    if "://" not in url:
        return Path(url)
    fs, root = fsspec.core.url_to_fs(url)
    fs.get(root.rstrip("/") + "/", str(folder) + "/", recursive=True)
    return folder


def contents(target: Path) -> dict[str, bytes]:
    """The bytes of all files below a folder."""
    return {
        str(path.relative_to(target)): path.read_bytes()
        for path in target.rglob("*")
        if path.is_file()
    }


def pooled(
    clip: NDArray[Any], window: int, stride: int, pool: str
) -> tuple[NDArray[np.float64], list[int]]:
    """Windows, one at a time, and their starts."""
    rows, starts, start = [], [], 0
    while True:
        part = clip[start : start + window].astype(np.float64)
        rows.append(part.mean(axis=0) if pool == "mean" else part.max(axis=0))
        starts.append(start)
        if start + window >= len(clip) or start + stride >= len(clip):
            return np.array(rows), starts
        start += stride
