"""Read videos with their features from parquet shards, one by one and each once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rayclip.io.retry import with_retry
from rayclip.io.storage_errors import is_transient, reason
from rayclip.output.done import name_hash
from rayclip.output.folder import FeatureFolder
from rayclip.output.rows import StoredVideo
from rayclip.output.shard_names import ADDED, VIDEO
from rayclip.output.stored_arrays import DamagedContent
from rayclip.output.video_files import DamagedFile

COLUMNS = [VIDEO, *ADDED]


def read_rows(
    folder: FeatureFolder, shards: Callable[[], Iterable[str]], schema: pa.Schema
) -> Iterator[StoredVideo]:
    """Read the shards of a folder in the order of their names; one row group is in memory.

    Keeps 64 bits of each video's name, since a video may be in two shards while ``rayclip compact``
    joins them.

    Args:
        folder: the folder of the shards.
        shards: lists their names.
        schema: the columns that they must have.

    Yields:
        ``(video, clip, timestamps_ms, fps)``; the arrays are copies.

    Raises:
        DamagedFile: a shard is damaged or cannot be read.
    """
    yielded: set[int] = set()
    opened: set[str] = set()
    list_again = True
    while list_again:  # ``rayclip compact`` removes shards once their rows are in another one
        list_again = False
        listed = set(shards())
        for file in sorted(listed - opened):
            opened.add(file)
            try:
                for row in _shard_rows(folder, file, schema):
                    key = name_hash(row[0])
                    if key not in yielded:
                        yielded.add(key)
                        yield row
            except FileNotFoundError:
                list_again = True


def _shard_rows(folder: FeatureFolder, file: str, schema: pa.Schema) -> Iterator[StoredVideo]:
    try:
        with with_retry(partial(folder.open, file), is_transient) as content:
            shard = with_retry(partial(_open, content), is_transient)
            _expect_columns(shard.schema_arrow, schema)
            for group in range(shard.num_row_groups):
                read = partial(shard.read_row_group, group, COLUMNS)
                for batch in with_retry(read, is_transient).to_batches():
                    yield from _batch_rows(batch)
    except FileNotFoundError:
        raise
    except Exception as error:  # each storage has exceptions of its own, and Arrow many
        raise DamagedFile(file, reason(error)) from error


def _open(content: Any) -> Any:
    return pq.ParquetFile(content, page_checksum_verification=True)


def _expect_columns(found: pa.Schema, expected: pa.Schema) -> None:
    clip = expected.field("clip").type
    if not set(COLUMNS) <= set(found.names) or found.field("clip").type != clip:
        vector = clip.value_type
        columns = f"{', '.join(COLUMNS)} of {vector.list_size} {vector.value_type}"
        raise DamagedContent(f"its columns are not {columns}")


def _batch_rows(batch: pa.RecordBatch) -> Iterator[StoredVideo]:
    """Yield rows with copies of their arrays, so that keeping one does not keep its row group."""
    for video, clip, timestamps_ms, fps in zip(*batch.select(COLUMNS).columns, strict=True):
        if not clip.is_valid or len(clip) != len(timestamps_ms):
            raise DamagedContent(f"the row of {video} is inconsistent")
        features = clip.values
        numbers = features.flatten().to_numpy()
        yield (
            video.as_py(),
            numbers.reshape(len(features), -1).copy(),
            timestamps_ms.values.to_numpy().copy(),
            fps.as_py(),
        )
