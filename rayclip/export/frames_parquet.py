"""``frames-parquet``: a row for each frame, in parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rayclip.export.format import Format, Put
from rayclip.export.videos import ExportedVideo
from rayclip.output.shard_names import VIDEO, row_name
from rayclip.output.shard_tables import ROW_GROUP

OURS = (VIDEO, "frame", "timestamp_ms", "clip")


class FramesParquetFormat(Format):
    has_files_per_video = False

    def write_part(self, number: int, videos: Iterator[ExportedVideo], put: Put) -> None:
        first = next(videos, None)
        if first is not None:
            put(f"frames-{number:06}.parquet", lambda file: _write(chain((first,), videos), file))


def _write(videos: Iterator[ExportedVideo], file: IO[bytes]) -> None:
    first = next(videos)
    schema = _schema(first)
    dictionaries = [name for name in schema.names if name not in OURS[1:]]
    with pq.ParquetWriter(
        file, schema, compression="zstd", use_dictionary=dictionaries, write_statistics=OURS[:3]
    ) as writer:
        group: list[pa.Table] = []
        for table in (rows for video in chain((first,), videos) for rows in _tables(video, schema)):
            if group and sum(part.nbytes for part in group) + table.nbytes > ROW_GROUP:
                _write_group(writer, group)
                group = []
            group.append(table)
        _write_group(writer, group)
    pa.default_memory_pool().release_unused()


def _write_group(writer: pq.ParquetWriter, tables: list[pa.Table]) -> None:
    rows = pa.concat_tables(tables)
    writer.write_table(rows, row_group_size=rows.num_rows)


def _schema(video: ExportedVideo) -> pa.Schema:
    number = pa.from_numpy_dtype(video.dtype)
    extra = pa.schema([]) if video.columns is None else video.columns.schema.remove_metadata()
    names = _free_names(extra.names)
    return pa.schema(
        [
            (VIDEO, pa.string()),
            *(field.with_name(name) for field, name in zip(extra, names, strict=True)),
            ("frame", pa.int64()),
            ("timestamp_ms", pa.float64()),
            ("clip", pa.list_(number, video.shape[1])),
        ]
    )


def _free_names(columns: Sequence[str]) -> list[str]:
    """Return names for the columns of the list; one that we need becomes ``list_…``."""
    taken = {*OURS, *columns}
    names = []
    for column in columns:
        name = column
        while name in OURS or (name != column and name in taken):
            name = f"list_{name}"
        taken.add(name)
        names.append(name)
    return names


def _tables(video: ExportedVideo, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of a video, some megabytes at a time."""
    starts, times = video.starts, video.timestamps_ms
    done = 0
    for block in video.blocks():
        rows = slice(done, done + len(block))
        yield _table(video, block, starts[rows], times[rows], schema)
        done = rows.stop


def _table(
    video: ExportedVideo,
    features: NDArray[Any],
    starts: NDArray[np.int64],
    times: NDArray[np.float64],
    schema: pa.Schema,
) -> pa.Table:
    rows = len(features)
    extra = [] if video.columns is None else video.columns.take(np.zeros(rows, np.int64)).columns
    columns = [
        pa.repeat(pa.scalar(row_name(video.stored.name), pa.string()), rows),
        *extra,
        pa.array(starts),
        pa.array(times),
        pa.FixedSizeListArray.from_arrays(
            pa.array(features.reshape(-1)), type=schema.field("clip").type
        ),
    ]
    return pa.Table.from_arrays(columns, schema=schema)
