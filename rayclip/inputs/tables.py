"""Read lists of videos from csv, tsv and parquet tables, block by block.

The readers yield Arrow tables with a column ``video`` and, on request, the other columns. The first
table is empty and has the schema.
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
    """Yield the rows of a parquet table; columns keep their types."""
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
    """Yield the rows of a csv or tsv table. All columns are text, since a type guessed from the
    first rows may not fit later ones.

    Args:
        file: the table.
        again: the same file, opened a second time, since Arrow reads past the header on a thread.
        path: its name, for messages.
        delimiter: the separator of values.
        column: the column of the paths.
        extra_columns: whether to read the other columns, too.
    """
    read = csv.ReadOptions(use_threads=False)  # no thread keeps reading after a pass is abandoned
    # Quoted values, such as captions, may contain line breaks.
    parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    with csv.open_csv(file, read, parse) as header:
        columns = columns_to_read(path, header.schema.names, column, extra_columns)
    types = dict.fromkeys(columns, pa.binary())  # values may not be UTF-8
    convert = csv.ConvertOptions(include_columns=columns, column_types=types)
    yield pa.schema([(VIDEO, pa.binary()), *((n, pa.string()) for n in columns[1:])]).empty_table()
    with csv.open_csv(again, read, parse, convert) as batches:
        for batch in batches:
            texts = [as_text(values) for values in batch.columns[1:]]
            yield with_video_column(pa.table([batch.column(0), *texts], columns), path, column)


def columns_to_read(path: str, found: Sequence[str], column: str, extra_columns: bool) -> list[str]:
    """Return the names of the columns to read; that of the paths comes first.

    Raises:
        UsageError: the column of the paths is missing, or another one cannot be copied.
    """
    if column not in found:
        raise UsageError(
            f"{path} has no column {column!r}: set path_column to the column of the paths, one of "
            f"{', '.join(found)}."
        )
    if not extra_columns:
        return [column]
    refuse_reserved_columns(name for name in found if name != column)
    return [column, *(name for name in found if name != column)]


def with_video_column(table: pa.Table, path: str, column: str) -> pa.Table:
    """Replace a table's first column, which has the paths, by the column ``video``."""
    names = _names(table.column(0), path, column)
    renamed = table.set_column(0, pa.field(VIDEO, pa.binary()), names)
    schema = pa.schema([_plain_type(field) for field in renamed.schema])
    return renamed.cast(schema)  # without pandas' metadata, which refers to columns by name


def _plain_type(field: pa.Field) -> pa.Field:
    """Make a column nullable, since arguments have no row in the list, and replace view types, for
    which Arrow lacks some operations."""
    kind = field.type
    if pa.types.is_string_view(kind):
        kind = pa.large_string()
    elif pa.types.is_binary_view(kind):
        kind = pa.large_binary()
    return pa.field(field.name, kind, metadata=field.metadata)


def _names(paths: pa.ChunkedArray, path: str, column: str) -> pa.ChunkedArray:
    """Convert paths to bytes.

    Raises:
        UsageError: one of them is not a path.
    """
    try:
        names = paths.cast(pa.binary())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise UsageError(
            f"{path} has {paths.type} in column {column!r}: name a column of paths."
        ) from None
    missing = pc.fill_null(pc.equal(pc.binary_length(names), 0), True)
    if pc.any(missing).as_py():
        shown = "''" if names.filter(missing)[0].is_valid else "None"
        raise UsageError(
            f"{path} has {shown} in column {column!r}, which is not a path: remove the row."
        )
    return names


def as_text(values: pa.Array) -> pa.Array:
    """Decode bytes to strings, replacing what is not UTF-8."""
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:  # bytes that are not UTF-8
        texts = [value.decode(errors="replace") for value in values.to_pylist()]
        return pa.array(texts, pa.string())
