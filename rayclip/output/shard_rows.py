"""Read videos with their features from a parquet shard, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rayclip.io.retry import with_retry
from rayclip.io.storage_errors import is_transient, reason
from rayclip.output.folder import FeatureFolder
from rayclip.output.rows import StoredVideo
from rayclip.output.shard_names import ADDED, PREDICTED, VIDEO
from rayclip.output.stored_arrays import DamagedContent
from rayclip.output.video_files import DamagedFile

COLUMNS = [VIDEO, *ADDED]


def read_rows(folder: FeatureFolder, file: str, schema: pa.Schema) -> Iterator[StoredVideo]:
    """Read the videos of a shard; one row group is in memory.

    Args:
        folder: the folder of the shard.
        file: its name.
        schema: the columns that it must have.

    Raises:
        FileNotFoundError: it was removed.
        DamagedFile: it is damaged or cannot be read.
    """
    try:
        with with_retry(partial(folder.open, file), is_transient) as content:
            shard = with_retry(partial(_open, content), is_transient)
            _expect_columns(shard.schema_arrow, schema)
            columns = [name for name in shard.schema_arrow.names if name not in PREDICTED]
            for group in range(shard.num_row_groups):
                read = partial(shard.read_row_group, group, columns)
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
    """Yield rows with copies of their arrays, so that keeping one does not keep its row group.

    The arrays of a row that is alone in its group, as a large one is, are not copied.
    """
    extra = batch.drop_columns([name for name in COLUMNS if name in batch.schema.names])
    for number, row in enumerate(zip(*batch.select(COLUMNS).columns, strict=True)):
        video, clip, timestamps_ms, fps = row
        if not clip.is_valid or len(clip) != len(timestamps_ms):
            raise DamagedContent(f"the row of {video} is inconsistent")
        features = clip.values.flatten().to_numpy().reshape(len(clip), -1)
        times = timestamps_ms.values.to_numpy()
        yield StoredVideo(
            video.as_py(),
            features if batch.num_rows == 1 else features.copy(),
            times if batch.num_rows == 1 else times.copy(),
            fps.as_py(),
            video.as_py(),
            extra.slice(number, 1),
        )
