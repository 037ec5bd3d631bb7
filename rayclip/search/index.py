"""An index of the frames of a folder, for collections that take too long to read for each search.

It is a cache: it can be deleted at any time. Features are normalised in it, never in the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from rayclip.errors import RunStopped, UsageError
from rayclip.io.listing import StoredFile
from rayclip.output.folder import FeatureFolder
from rayclip.output.video_files import DamagedFile
from rayclip.search.cache import cache_folder

VERSION = 1
FOLDER = "index"  # beside the features
CURRENT = "current.json"  # names the folder of the index; replaced last
VECTORS, VIDEOS, STATISTICS = "frames.usearch", "videos.parquet", "statistics.npz"
COMPARED = ("model_name", "weights_sha256", "dim", "feature_dtype", "on_extraction")
ADDED_AT_ONCE = 8192  # frames
CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH = 16, 128, 8192
"""Of usearch's graph. Texts lie far from all pictures, so a look-up must try many frames: of a
million, it finds 97.5 % of the best ten with 4096 and 98.8 % with 8192, in twice the time."""

SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("size", pa.int64()),
        ("modified", pa.float64()),
        ("videos", pa.int64()),
        ("frames", pa.int64()),
    ]
)


class IndexedFile(NamedTuple):
    """A file of features that an index covers.

    Attributes:
        file: its path in the folder.
        size: bytes.
        modified: seconds since 1970; None if the storage has no times.
        videos: how many it has.
        frames: of all its videos; their numbers follow those of the file before.
    """

    file: str
    size: int
    modified: float | None
    videos: int
    frames: int


@dataclass
class FrameIndex:
    """An index that is open.

    Attributes:
        vectors: usearch's index, of each frame by its number.
        files: the files that it covers, in the order of their frames' numbers.
        total: float64 ``[D]``, the sum of all normalised features.
        products: float64 ``[D, D]``, the sum of their outer products: with these two, the mean and
            the deviation of the cosines of any query are known.
    """

    vectors: Any
    files: list[IndexedFile]
    total: NDArray[np.float64]
    products: NDArray[np.float64]

    @property
    def frames(self) -> int:
        """The number of frames."""
        return sum(file.frames for file in self.files)

    def add(self, features: NDArray[np.float32]) -> None:
        """Add frames: float32 ``[n, D]``, normalised."""
        start = len(self.vectors)
        self.vectors.add(np.arange(start, start + len(features), dtype=np.uint64), features)
        self.total += features.sum(axis=0, dtype=np.float64)
        self.products += features.T @ features

    def covers(self, listing: Mapping[str, StoredFile]) -> bool:
        """Whether all its files are still there and unchanged."""
        return all(
            (found := listing.get(file.file)) is not None
            and (found.size, found.modified) == (file.size, file.modified)
            for file in self.files
        )

    def nearest_files(
        self, query: NDArray[np.float32], frames: int
    ) -> tuple[list[str], NDArray[np.float32]]:
        """Return the files of the frames that fit a query best, and these frames' cosines.

        Args:
            query: float32 ``[D]``, normalised.
            frames: how many frames to look up.
        """
        found = self.vectors.search(query, min(frames, max(len(self.vectors), 1)))
        ends = np.cumsum([file.frames for file in self.files])
        places = np.searchsorted(ends, found.keys.astype(np.int64), side="right")
        names = [self.files[place].file for place in dict.fromkeys(places.tolist())]
        return names, 1 - np.asarray(found.distances, np.float32)


def index_location(folder: FeatureFolder) -> Path:
    """Where the index of a folder is: in it, or in the cache if it is not on a local disk."""
    fs, root = folder.fs_and_path()
    if isinstance(fs, LocalFileSystem):
        return Path(root) / FOLDER
    return cache_folder() / "indexes" / hashlib.blake2b(folder.url.encode()).hexdigest()[:32]


def usearch_index() -> Any:
    """Return usearch's class.

    Raises:
        UsageError: it is not installed.
    """
    try:
        from usearch.index import Index
    except ImportError:
        raise UsageError(
            "An index needs a package that is missing: pip install 'rayclip[index]'."
        ) from None
    return Index


def open_index(
    location: Path, run: Mapping[str, Any], in_memory: bool = False
) -> FrameIndex | None:
    """Open an index; None if there is none of this run that can be read.

    Args:
        location: from :func:`index_location`.
        run: the content of ``run.json``.
        in_memory: load it, to add to it. Otherwise its file is mapped.

    Raises:
        UsageError: usearch is not installed.
    """
    try:
        current = json.loads((location / CURRENT).read_text())
        folder = location / Path(current["folder"]).name
        if current["version"] != VERSION or current["run"] != _identity(run):
            return None
        rows = pq.read_table(folder / VIDEOS, schema=SCHEMA).to_pylist()
        with np.load(folder / STATISTICS, allow_pickle=False) as statistics:
            total, products = statistics["total"], statistics["products"]
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None
    vectors = usearch_index()(ndim=int(run["dim"]), metric="cos", dtype="f16")
    try:
        read = vectors.load if in_memory else vectors.view
        read(str(folder / VECTORS))
    except Exception:  # usearch raises what its C++ does
        return None
    vectors.expansion_search = EXPANSION_SEARCH
    index = FrameIndex(vectors, [IndexedFile(**_row(row)) for row in rows], total, products)
    return index if len(vectors) == index.frames else None


def update_index(
    folder: FeatureFolder,
    run: Mapping[str, Any],
    on_progress: Callable[[int], object],
    on_damaged: Callable[[DamagedFile], object],
) -> tuple[FrameIndex, int]:
    """Add what is new to the index of a folder; make it anew if files are gone or have changed.

    Args:
        folder: the output folder of a model.
        run: the content of its ``run.json``.
        on_progress: called with the number of frames so far.
        on_damaged: called with each damaged file, which is left out.

    Returns:
        The index, and how many of its frames are new.

    Raises:
        UsageError: usearch is not installed, or the folder cannot be read.
        RunStopped: the index cannot be written.
    """
    location, dim = index_location(folder), int(run["dim"])
    listing = {file.path: file for file in folder.feature_files()}
    index = open_index(location, run, in_memory=True)
    if index is None or not index.covers(listing):
        vectors = usearch_index()(
            ndim=dim,
            metric="cos",
            dtype="f16",
            connectivity=CONNECTIVITY,
            expansion_add=EXPANSION_ADD,
        )
        index = FrameIndex(vectors, [], np.zeros(dim), np.zeros((dim, dim)))
    known, before = {file.file for file in index.files}, index.frames
    for path in sorted(listing.keys() - known):
        start, videos = len(index.vectors), 0
        try:
            for video in folder.scan_file(path):
                videos += 1
                for features in _blocks(map(_normalised, video.blocks)):
                    index.add(features)
        except FileNotFoundError:  # removed meanwhile
            continue
        except DamagedFile as error:  # its beginning stays in the index, and does no harm there
            on_damaged(error)
        stored, frames = listing[path], len(index.vectors) - start
        index.files.append(IndexedFile(path, stored.size, stored.modified, videos, frames))
        on_progress(len(index.vectors))
    if len(index.files) > len(known):
        _save(location, index, run)
    return index, index.frames - before


def _blocks(parts: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Join blocks, since usearch adds many at once in threads."""
    held: list[NDArray[np.float32]] = []
    for part in parts:
        held.append(part)
        if sum(map(len, held)) >= ADDED_AT_ONCE:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


def _normalised(block: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    rows = block.astype(np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    norms[norms == 0] = 1
    rows /= norms
    rows[~np.isfinite(rows).all(axis=1)] = 0
    return rows


def _save(location: Path, index: FrameIndex, run: Mapping[str, Any]) -> None:
    """Write an index beside the one before, and then replace that."""
    folder = location / uuid.uuid4().hex
    try:
        folder.mkdir(parents=True)
        index.vectors.save(str(folder / VECTORS))
        rows = [file._asdict() for file in index.files]
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / VIDEOS)
        np.savez(folder / STATISTICS, total=index.total, products=index.products)
        current = {"version": VERSION, "folder": folder.name, "run": _identity(run)}
        temporary = folder / CURRENT
        temporary.write_text(json.dumps(current))
        os.replace(temporary, location / CURRENT)
    except Exception as error:  # usearch raises what its C++ does
        shutil.rmtree(folder, ignore_errors=True)
        raise RunStopped(f"The index in {location} cannot be written: {error}.") from error
    for other in location.iterdir():
        if other.is_dir() and other != folder:
            with suppress(OSError):
                shutil.rmtree(other)


def _identity(run: Mapping[str, Any]) -> dict[str, Any]:
    return {name: run.get(name) for name in COMPARED}


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in IndexedFile._fields}
