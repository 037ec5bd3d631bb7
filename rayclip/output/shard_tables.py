"""The rows of a shard as Arrow tables, and writing and checking these."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rayclip.output.rows import Row
from rayclip.output.shard_names import PREDICTED, VIDEO, row_name
from rayclip.output.spool import slices

ROW_GROUP = 16 * 2**20  # bytes of features, or one row
WRITING = 7  # times the memory of a row group, which writing it takes at most


def shard_schema(
    extra_columns: pa.Schema | None, dim: int, dtype: str, with_predictions: bool = False
) -> pa.Schema:
    """Return the schema of a shard.

    Args:
        extra_columns: the columns between the video and its features.
        dim: features per frame.
        dtype: ``float32`` or ``float16``, of features.
        with_predictions: whether there are columns for the best texts of each frame.
    """
    predicted = (pa.list_(pa.list_(pa.string())), pa.list_(pa.list_(pa.float64())))
    number = pa.float16() if dtype == "float16" else pa.float32()
    return pa.schema(
        [
            (VIDEO, pa.string()),
            *(extra_columns.remove_metadata() if extra_columns is not None else ()),
            ("clip", pa.list_(pa.list_(number, dim))),
            ("timestamps_ms", pa.list_(pa.float64())),
            ("fps", pa.float64()),
            *(zip(PREDICTED, predicted, strict=True) if with_predictions else ()),
        ]
    )


def row_tables(rows: Sequence[Row], schema: pa.Schema) -> Iterator[Any]:
    """Convert rows to tables, one for each row group; memory-mapped features are not copied.

    Args:
        rows: the rows, in order.
        schema: from :func:`shard_schema`.
    """
    for part in _row_groups(rows):
        columns_of_rows = [row.columns for row in part if row.columns is not None]
        extra = pa.concat_tables(columns_of_rows).columns if columns_of_rows else []
        features = schema.field("clip").type
        columns = [
            pa.array([row_name(row.video) for row in part], pa.string()),
            *extra,
            features_array([row.extraction.clip for row in part], features),
            pa.array([row.extraction.timestamps_ms for row in part], pa.list_(pa.float64())),
            pa.array([row.extraction.fps for row in part], pa.float64()),
            *(_predicted(part, schema) if PREDICTED[0] in schema.names else ()),
        ]
        yield pa.Table.from_arrays(columns, schema=schema)


def _predicted(rows: Sequence[Row], schema: pa.Schema) -> Iterator[pa.Array]:
    """Yield the columns of the predictions."""
    for column, name in zip(PREDICTED, ("label", "probability"), strict=True):
        values = [
            [[getattr(text, name) for text in frame] for frame in row.predictions or ()]
            for row in rows
        ]
        yield pa.array(values, schema.field(column).type)


def features_array(clips: Sequence[NDArray[Any] | None], kind: pa.DataType) -> pa.ListArray:
    """Build lists of fixed-size lists from the arrays' memory, not number by number.

    Args:
        clips: each float32 ``[T, D]``; None becomes null.
        kind: ``list<fixed_size_list<float32 or float16, D>>``, or ``list<list<float32>>`` for
            arrays that differ in D.
    """
    dtype = kind.value_type.value_type.to_pandas_dtype()
    offsets = np.cumsum([0, *(0 if clip is None else len(clip) for clip in clips)])
    arrays = [_converted(clip, dtype).reshape(-1) for clip in clips if clip is not None]
    values = arrays[0] if len(arrays) == 1 else np.concatenate([np.empty(0, dtype), *arrays])
    if pa.types.is_fixed_size_list(kind.value_type):
        rows = pa.FixedSizeListArray.from_arrays(pa.array(values), type=kind.value_type)
    else:
        dims = [dim for clip in clips if clip is not None for dim in [clip.shape[1]] * len(clip)]
        ends = pa.array(np.cumsum([0, *dims]), pa.int32())
        rows = pa.ListArray.from_arrays(ends, pa.array(values), type=kind.value_type)
    missing = pa.array([clip is None for clip in clips], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), rows, type=kind, mask=missing)


def write_tables(file: IO[bytes], schema: pa.Schema, tables: Iterable[Any]) -> None:
    """Write a parquet file, each table as a row group.

    Raises:
        OSError: the file cannot be written.
    """
    with pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        use_dictionary=[f"{PREDICTED[0]}.list.element.list.element"],
        write_statistics=[VIDEO],
        write_page_checksum=True,
    ) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=max(1, table.num_rows))


def find_damage(shard: pq.ParquetFile, schema: pa.Schema) -> str | None:
    """Read a whole shard, one row group at a time; returns what is wrong with it, or None.

    Args:
        shard: the open shard.
        schema: the columns that it must have.
    """
    for field in schema:
        if field.name not in shard.schema_arrow.names:
            return f"it has no column {field.name}"
        found = shard.schema_arrow.field(field.name).type
        if found != field.type:
            return f"its column {field.name} is {found}, not {field.type}"
    for group in range(shard.num_row_groups):
        table = shard.read_row_group(group)
        clip = table.column("clip").combine_chunks()
        times = table.column("timestamps_ms").combine_chunks()
        if not pc.all(pc.equal(pc.list_value_length(clip), pc.list_value_length(times))).as_py():
            return "a video has different numbers of features and timestamps"
        if clip.null_count or pc.min(pc.list_value_length(clip)).as_py() < 1:
            return "a video has no features"
        if not np.isfinite(clip.flatten().flatten().to_numpy()).all():
            return "some of its numbers are not finite"
    return None


def _row_groups(rows: Sequence[Row]) -> Iterator[list[Row]]:
    part: list[Row] = []
    size = 0
    for row in rows:
        size += row.extraction.clip.nbytes
        if part and size > ROW_GROUP:
            yield part
            part, size = [], row.extraction.clip.nbytes
        part.append(row)
    if part:
        yield part


def _converted(clip: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Convert an array to a dtype; a ``np.memmap`` is read in slices."""
    if clip.dtype == dtype:
        return clip
    result = np.empty(clip.shape, dtype)
    done = 0
    for rows in slices(clip):
        result[done : done + len(rows)] = rows
        done += len(rows)
    return result
