"""Find the videos in shards, by reading only footers and the column of names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rayclip.errors import RunStopped, UsageError
from rayclip.io.atomic_write import TMP_SUFFIX
from rayclip.io.concurrent_map import concurrent_map
from rayclip.io.listing import StoredFile
from rayclip.io.retry import RetriesExhausted, with_retry
from rayclip.io.storage_errors import is_transient, reason
from rayclip.output.done import FEATURES, DoneVideos, is_stale_tmp_file, name_hash
from rayclip.output.folder import FeatureFolder
from rayclip.output.formats import SUFFIXES
from rayclip.output.shard_names import SHARD, VIDEO
from rayclip.output.stored_arrays import DamagedContent

T = TypeVar("T")

MAX_LISTINGS = 5  # list again if ``rayclip compact`` removes shards meanwhile


class Shard(NamedTuple):
    """The content of a shard.

    Attributes:
        hashes: hashes of the names of its videos, in order.
        frames: the number of frames of all its videos.
    """

    hashes: NDArray[np.uint64]
    frames: int


GONE = Shard(np.empty(0, np.uint64), 0)


def read_shard(folder: FeatureFolder, file: str, read: Callable[[pq.ParquetFile], T]) -> T:
    """Open a shard and read from it, with retries for transient errors.

    Raises:
        FileNotFoundError: it does not exist any more.
        DamagedContent: its footer cannot be read.
        UsageError, RunStopped: it cannot be read.
    """

    def open_and_read() -> T:
        with folder.open(file) as opened:
            try:
                shard = pq.ParquetFile(opened, page_checksum_verification=True)
            except pa.ArrowInvalid as error:
                raise DamagedContent(reason(error)) from error
            return read(shard)

    try:
        return with_retry(open_and_read, is_transient)
    except (FileNotFoundError, DamagedContent):
        raise
    except RetriesExhausted as error:
        raise RunStopped(f"{folder.url}/{file} cannot be read: {error}.") from error
    except Exception as error:  # each storage has exceptions of its own
        raise UsageError(f"{folder.url}/{file} cannot be read: {reason(error)}.") from error


def read_hashes(shard: pq.ParquetFile) -> Shard:
    """Read the hashes of the names of a shard's videos, but no features."""
    hashes = np.array(list(map(name_hash, read_names(shard))), np.uint64)
    return Shard(hashes, _frames(shard.metadata))


def read_names(shard: pq.ParquetFile) -> list[str]:
    """Read the names of a shard's videos."""
    names: list[str] = shard.read(columns=[VIDEO]).column(VIDEO).to_pylist()
    return names


def frames_by_video(folder: FeatureFolder, shards: Callable[[], Iterable[str]]) -> dict[str, int]:
    """Return the number of frames of each video in some shards.

    Unreadable shards are left out, since recomputing their videos is safe.
    """
    found: dict[str, int] = {}
    with suppress(Exception):  # each storage has exceptions of its own
        for file in with_retry(shards, is_transient):
            with suppress(FileNotFoundError, DamagedContent, UsageError, RunStopped):
                found.update(read_shard(folder, file, _frames_of_each))
    return found


def find_rows(folder: FeatureFolder, listing: Iterable[StoredFile] | None = None) -> DoneVideos:
    """Find each video that is in a shard.

    Args:
        folder: the folder of the shards.
        listing: its files; None lists it.

    Raises:
        UsageError, RunStopped: it cannot be listed, or a shard cannot be read.
    """
    now = time.time()
    known: dict[str, Shard | None] = {}
    stale_tmp: list[str] = []
    other_format = None
    for _ in range(MAX_LISTINGS):
        new = []
        for file in folder.files() if listing is None else listing:
            if SHARD.fullmatch(file.path) and file.path not in known:
                new.append(file.path)
            elif file.path.endswith(TMP_SUFFIX) and is_stale_tmp_file(file, now):
                stale_tmp.append(file.path)
            elif file.path.endswith(tuple(FEATURES + suffix for suffix in SUFFIXES)):
                other_format = file.path
        results = concurrent_map(partial(_read_shard, folder), new)
        found = {name: shard for name, shard in zip(new, results, strict=True) if shard is not GONE}
        known |= found
        if len(found) == len(new):
            break
        listing = None  # the rows of removed shards are in other ones now
    shards = [shard for shard in known.values() if shard is not None]
    hashes = np.unique(np.concatenate([np.empty(0, np.uint64), *(s.hashes for s in shards)]))
    damaged = [name for name, shard in known.items() if shard is None]
    return DoneVideos(
        hashes,
        sum(shard.frames for shard in shards),
        hashes,
        len(damaged),
        [*stale_tmp, *damaged],
        other_format,
    )


def _read_shard(folder: FeatureFolder, file: str) -> Shard | None:
    """Read a shard; None if it is damaged, GONE if it was removed."""
    try:
        return read_shard(folder, file, read_hashes)
    except DamagedContent:
        return None
    except FileNotFoundError:
        return GONE


def _frames(metadata: pq.FileMetaData) -> int:
    """Count the timestamps of all rows. None of them is null, and no list is empty."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return sum(
        column.num_values
        for group in groups
        for column in (group.column(number) for number in range(group.num_columns))
        if column.path_in_schema == "timestamps_ms.list.element"
    )


def _frames_of_each(shard: pq.ParquetFile) -> dict[str, int]:
    table = shard.read(columns=[VIDEO, "timestamps_ms"])
    lengths = pc.list_value_length(table.column("timestamps_ms"))
    return dict(zip(table.column(VIDEO).to_pylist(), lengths.to_pylist(), strict=True))
