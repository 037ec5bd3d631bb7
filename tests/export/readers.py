"""Exports as the libraries read them that people use for each format."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import polars
import webdataset
from numpy.typing import NDArray


class Read(NamedTuple):
    features: NDArray[Any]
    timestamps_ms: list[float]


def by_numpy(target: Path) -> dict[str, Read]:
    found = {}
    for path in target.rglob("*.npz"):
        with np.load(path) as arrays:
            assert {*arrays} == {"features", "timestamps_ms", "fps"}
            assert arrays["fps"] == 25.0
            name = str(path.relative_to(target)).removesuffix(".npz")
            found[name] = Read(arrays["features"], arrays["timestamps_ms"].tolist())
    return found


def by_h5py(target: Path) -> dict[str, Read]:
    found = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Group) and "features" in item:
            assert item["fps"][()] == 25.0
            found[name] = Read(item["features"][:], item["timestamps_ms"][:].tolist())

    with h5py.File(target / "features.h5") as file:
        file.visititems(visit)
    return found


def by_polars(target: Path) -> dict[str, Read]:
    rows = polars.read_parquet(target / "frames-*.parquet", missing_columns="insert")
    return {
        group["video"][0]: Read(group["clip"].to_numpy(), group["timestamp_ms"].to_list())
        for group in rows.partition_by("video", maintain_order=True)
    }


def by_webdataset(target: Path) -> dict[str, Read]:
    last = len(list(target.glob("shard-*.tar"))) - 1  # the names are a range without gaps
    shards = str(target / f"shard-{{000000..{last:06}}}.tar")
    found = {}
    for sample in webdataset.WebDataset(shards, shardshuffle=False, empty_check=False):
        about = json.loads(sample["json"])
        assert about["fps"] == 25.0
        assert "." not in sample["__key__"].rpartition("/")[2]
        found[about["video"]] = Read(np.load(io.BytesIO(sample["npy"])), about["timestamps_ms"])
    return found


READERS: dict[str, Callable[[Path], dict[str, Read]]] = {
    "npz": by_numpy,
    "hdf5": by_h5py,
    "frames-parquet": by_polars,
    "webdataset": by_webdataset,
}
"""By format."""
