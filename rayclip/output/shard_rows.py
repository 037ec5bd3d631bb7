"""The videos of parquet shards, with their features, one after the other and each once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rayclip.io.retry import with_retry
from rayclip.io.storage_errors import is_transient, reason
from rayclip.output.done import name_hash
from rayclip.output.shard_names import ADDED, VIDEO
from rayclip.output.shard_tables import schema_of
from rayclip.output.shards import ShardFolder
from rayclip.output.stored_arrays import DamagedContent
from rayclip.output.video_files import DamagedFile

COLUMNS = [VIDEO, *ADDED]

Video = tuple[str, NDArray[Any], NDArray[Any], float]


def iter_rows(folder: ShardFolder) -> Iterator[Video]:
    """Go through the shards of a folder by their names; one row group is in memory.

    Of each video 64 bits are kept, since it may be in two shards while these are joined.

    Yields:
        ``(video, clip, timestamps_ms, fps)``, the arrays as their own copies.

    Raises:
        DamagedFile: a shard is damaged or cannot be read.
    """
    given: set[int] = set()
    opened: set[str] = set()
    some_are_gone = True
    while some_are_gone:  # ``rayclip compact`` takes shards away once their rows are in another
        some_are_gone = False
        there = {file.path for file in folder.shards()}
        for file in sorted(there - opened):
            opened.add(file)
            try:
                for row in _rows_of(folder, file):
                    key = name_hash(row[0])
                    if key not in given:
                        given.add(key)
                        yield row
            except FileNotFoundError:
                some_are_gone = True


def _rows_of(folder: ShardFolder, file: str) -> Iterator[Video]:
    try:
        with with_retry(partial(folder.open, file), is_transient) as content:
            shard = with_retry(partial(_open, content), is_transient)
            _expect_columns(shard.schema_arrow, folder)
            for group in range(shard.num_row_groups):
                read = partial(shard.read_row_group, group, COLUMNS)
                for batch in with_retry(read, is_transient).to_batches():
                    yield from _rows_in(batch)
    except FileNotFoundError:
        raise
    except Exception as error:  # each storage has exceptions of its own, and Arrow many
        raise DamagedFile(file, reason(error)) from error


def _open(content: Any) -> Any:
    return pq.ParquetFile(content, page_checksum_verification=True)


def _expect_columns(schema: pa.Schema, folder: ShardFolder) -> None:
    wanted = schema_of(None, folder.dim, folder.dtype).field("clip").type
    kind = schema.field("clip").type if set(COLUMNS) <= set(schema.names) else None
    if kind != wanted:
        number = wanted.value_type.value_type
        raise DamagedContent(f"its columns are not {', '.join(COLUMNS)} of {folder.dim} {number}")


def _rows_in(batch: pa.RecordBatch) -> Iterator[Video]:
    """Arrays are copied as a whole, so that one that is kept does not keep its row group."""
    for video, clip, timestamps_ms, fps in zip(*batch.select(COLUMNS).columns, strict=True):
        if not clip.is_valid or len(clip) != len(timestamps_ms):
            raise DamagedContent(f"the row of {video} does not hold together")
        features = clip.values
        numbers = features.flatten().to_numpy()
        yield (
            video.as_py(),
            numbers.reshape(len(features), -1).copy(),
            timestamps_ms.values.to_numpy().copy(),
            fps.as_py(),
        )
