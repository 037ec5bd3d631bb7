"""Lists of videos in tables: csv, tsv and parquet, read block by block.

They give tables of Arrow with ``video`` and, where they are carried along, the other columns. The
first one is empty, and tells the types.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from rayclip.errors import UsageError
from rayclip.inputs.video_rows import BATCH_ROWS
from rayclip.output.shard_names import VIDEO, refuse_reserved_columns

DELIMITERS = {".csv": ",", ".tsv": "\t"}


def parquet_tables(
    file: IO[bytes], path: str, column: str, extra_columns: bool
) -> Iterator[pa.Table]:
    """The rows of a parquet table; columns keep their types."""
    try:
        table = pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise UsageError(f"{path} is not a parquet table: {error}.") from error
    schema = table.schema_arrow
    columns = columns_to_read(path, schema.names, column, extra_columns)
    yield with_video_column(schema.empty_table().select(columns), path, column)
    for batch in table.iter_batches(BATCH_ROWS, columns=columns):
        yield with_video_column(pa.Table.from_batches([batch]).select(columns), path, column)


def csv_tables(
    file: IO[bytes], again: IO[bytes], path: str, delimiter: str, column: str, extra_columns: bool
) -> Iterator[pa.Table]:
    """The rows of a csv or tsv table. Columns are text as it is written, whatever it looks like:
    a type that is guessed from the first rows may not fit the later ones.

    Args:
        file: the table.
        again: the same, opened once more: Arrow reads ahead of the header on a thread of its own.
        path: its name.
        delimiter: between values.
        column: of the paths.
        carried: whether the other columns are wanted.
    """
    read = csv.ReadOptions(use_threads=False)  # no thread reads on where a pass is given up
    # Quoted values, such as captions beside the paths, may have line ends in them.
    parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    with csv.open_csv(file, read, parse) as header:
        columns = columns_to_read(path, header.schema.names, column, extra_columns)
    types = dict.fromkeys(columns, pa.binary())  # nothing need be UTF-8
    convert = csv.ConvertOptions(include_columns=columns, column_types=types)
    yield pa.schema([(VIDEO, pa.binary()), *((n, pa.string()) for n in columns[1:])]).empty_table()
    with csv.open_csv(again, read, parse, convert) as batches:
        for batch in batches:
            texts = [as_text(values) for values in batch.columns[1:]]
            yield with_video_column(pa.table([batch.column(0), *texts], columns), path, column)


def columns_to_read(path: str, found: Sequence[str], column: str, extra_columns: bool) -> list[str]:
    """The columns to read of a table: that of the paths first.

    Raises:
        UsageError: that of the paths is not there, or others cannot be carried.
    """
    if column not in found:
        raise UsageError(
            f"{path} has no column {column!r}; its columns are: {', '.join(found)}. Name that of "
            "the paths with path_column."
        )
    if not extra_columns:
        return [column]
    refuse_reserved_columns(name for name in found if name != column)
    return [column, *(name for name in found if name != column)]


def with_video_column(table: pa.Table, path: str, column: str) -> pa.Table:
    """A table whose first column are paths, with ``video`` in their place."""
    names = _names(table.column(0), path, column)
    renamed = table.set_column(0, pa.field(VIDEO, pa.binary()), names)
    schema = pa.schema([_plain_type(field) for field in renamed.schema])
    return renamed.cast(schema)  # without pandas' metadata, which speaks of columns by their names


def _plain_type(field: pa.Field) -> pa.Field:
    """A column beside the videos as it is carried: videos that are no rows of a list have nulls,
    and of views not all that is needed is implemented."""
    kind = field.type
    if pa.types.is_string_view(kind):
        kind = pa.large_string()
    elif pa.types.is_binary_view(kind):
        kind = pa.large_binary()
    return pa.field(field.name, kind, metadata=field.metadata)


def _names(paths: pa.ChunkedArray, path: str, column: str) -> pa.ChunkedArray:
    """Paths as bytes.

    Raises:
        UsageError: not all of them are paths.
    """
    try:
        names = paths.cast(pa.binary())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise UsageError(f"{path} has {paths.type} in column {column!r}, not paths.") from None
    missing = pc.fill_null(pc.equal(pc.binary_length(names), 0), True)
    if pc.any(missing).as_py():
        shown = "''" if names.filter(missing)[0].is_valid else "None"
        raise UsageError(f"{path} has {shown} in column {column!r}: no path.")
    return names


def as_text(values: pa.Array) -> pa.Array:
    """Bytes as strings; what is not UTF-8 is replaced."""
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:  # bytes that are not UTF-8
        texts = [value.decode(errors="replace") for value in values.to_pylist()]
        return pa.array(texts, pa.string())
