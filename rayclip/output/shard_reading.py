"""Which videos lie in shards, as their footers and names of videos tell."""

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

LISTINGS = 5  # that are made while shards go from under our eyes, as ``rayclip compact`` takes them


class Shard(NamedTuple):
    """What is in a shard.

    Attributes:
        hashes: of the names of its videos, in their order.
        frames: of all together.
    """

    hashes: NDArray[np.uint64]
    frames: int


GONE = Shard(np.empty(0, np.uint64), 0)


def read_shard(folder: FeatureFolder, file: str, read: Callable[[pq.ParquetFile], T]) -> T:
    """Open a shard and read from it, again and again where the storage fails for a while.

    Raises:
        FileNotFoundError: it is gone.
        DamagedContent: it has no footer that can be read.
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


def look_at(shard: pq.ParquetFile) -> Shard:
    """Read the names of its videos, and nothing of their features."""
    names = shard.read(columns=[VIDEO]).column(VIDEO).to_pylist()
    return Shard(np.array(list(map(name_hash, names)), np.uint64), _frames(shard.metadata))


def frames_by_video(folder: FeatureFolder, shards: Callable[[], Iterable[str]]) -> dict[str, int]:
    """The number of frames of each video in some shards; what cannot be read is left out: to make
    it again is safe."""
    found: dict[str, int] = {}
    with suppress(Exception):  # each storage has exceptions of its own
        for file in with_retry(shards, is_transient):
            with suppress(FileNotFoundError, DamagedContent, UsageError, RunStopped):
                found.update(read_shard(folder, file, _frames_of_each))
    return found


def find_rows(folder: FeatureFolder, listing: Iterable[StoredFile] | None = None) -> DoneVideos:
    """Find every video that lies in a shard.

    Args:
        folder: of the shards.
        listing: of its files; None lists it.

    Raises:
        UsageError, RunStopped: it cannot be listed, or a shard not be read.
    """
    now = time.time()
    known: dict[str, Shard | None] = {}
    stale_tmp: list[str] = []
    other_format = None
    for _ in range(LISTINGS):
        new = []
        for file in folder.files() if listing is None else listing:
            if SHARD.fullmatch(file.path) and file.path not in known:
                new.append(file.path)
            elif file.path.endswith(TMP_SUFFIX) and is_stale_tmp_file(file, now):
                stale_tmp.append(file.path)
            elif file.path.endswith(tuple(FEATURES + suffix for suffix in SUFFIXES)):
                other_format = file.path
        looks = concurrent_map(partial(_look, folder), new)
        found = {name: look for name, look in zip(new, looks, strict=True) if look is not GONE}
        known |= found
        if len(found) == len(new):
            break
        listing = None  # what went is in other shards by now
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


def _look(folder: FeatureFolder, file: str) -> Shard | None:
    """What is in a shard; None where it is damaged, and GONE where it is no more."""
    try:
        return read_shard(folder, file, look_at)
    except DamagedContent:
        return None
    except FileNotFoundError:
        return GONE


def _frames(metadata: pq.FileMetaData) -> int:
    """Of all rows: how many times there are. None of them is null, and no list is empty."""
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
