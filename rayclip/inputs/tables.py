"""Read lists of videos from csv, tsv and parquet tables, block by block.

The readers yield Arrow tables with a column ``video`` and, on request, the other columns. The first
table is empty and has the schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from rayclip.errors import UsageError
from rayclip.inputs.ranges import RANGE_COLUMNS, as_parts
from rayclip.inputs.video_rows import BATCH_ROWS
from rayclip.output.shard_names import VIDEO, refuse_reserved_columns

DELIMITERS = {".csv": ",", ".tsv": "\t"}
CSV_READ = csv.ReadOptions(use_threads=False)  # no thread keeps reading after a pass is abandoned


@dataclass(frozen=True)
class TableReading:
    """What is read of a table.

    Attributes:
        path: name of the table, for messages.
        column: the column of the paths.
        extra_columns: whether to read the other columns, too.
        with_ranges: whether the columns of ranges make a row a part of its video.
        of_folders: whether paths are folders of frames, which then end in a slash.
    """

    path: str
    column: str
    extra_columns: bool
    with_ranges: bool
    of_folders: bool = False

    def columns(self, found: Sequence[str]) -> list[str]:
        """Return the names of the columns to read; that of the paths comes first.

        Raises:
            UsageError: the column of the paths is missing, or another one cannot be copied.
        """
        if self.column not in found:
            raise UsageError(
                f"{self.path} has no column {self.column!r}: set path_column to the column of the "
                f"paths, one of {', '.join(found)}."
            )
        others = [name for name in found if name != self.column]
        if self.extra_columns:
            refuse_reserved_columns(others)
            return [self.column, *others]
        return [self.column, *(name for name in self.ranges(found))]

    def ranges(self, found: Sequence[str]) -> list[str]:
        """Return which of the columns of ranges are there and used.

        Raises:
            UsageError: one is there twice.
        """
        used = [name for name in found if self.with_ranges and name in RANGE_COLUMNS]
        if len(set(used)) < len(used):
            raise UsageError(f"{self.path} has a column of ranges twice: rename one of them.")
        return used

    def videos(self, table: pa.Table) -> pa.Table:
        """Replace a table's first column, which has the paths, by the column ``video``; drop those
        that were read only for it."""
        names = _names(table.column(0), self.path, self.column)
        if self.of_folders:
            slash = pc.if_else(pc.ends_with(names, "/"), b"", b"/")
            names = pc.binary_join_element_wise(names, slash, b"")
        if self.ranges(table.column_names):
            names = as_parts(names, table, self.path)
        renamed = table.set_column(0, pa.field(VIDEO, pa.binary()), names)
        if not self.extra_columns:
            renamed = renamed.select([0])
        schema = pa.schema([_plain_type(field) for field in renamed.schema])
        return renamed.cast(schema)  # without pandas' metadata, which refers to columns by name


def parquet_tables(file: IO[bytes], reading: TableReading) -> Iterator[pa.Table]:
    """Yield the rows of a parquet table; columns keep their types."""
    table = _open_parquet(file, reading.path)
    schema = table.schema_arrow
    columns = reading.columns(schema.names)
    yield reading.videos(schema.empty_table().select(columns))
    for batch in table.iter_batches(BATCH_ROWS, columns=columns):
        yield reading.videos(pa.Table.from_batches([batch]).select(columns))


def parquet_columns(file: IO[bytes], path: str) -> list[str]:
    """Return the names of a parquet table's columns."""
    return list(_open_parquet(file, path).schema_arrow.names)


def _open_parquet(file: IO[bytes], path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise UsageError(f"{path} is not a parquet table: {error}.") from error


def csv_tables(
    file: IO[bytes], again: IO[bytes], delimiter: str, reading: TableReading
) -> Iterator[pa.Table]:
    """Yield the rows of a csv or tsv table. All columns are text, since a type guessed from the
    first rows may not fit later ones.

    Args:
        file: the table.
        again: the same file, opened a second time, since Arrow reads past the header on a thread.
        delimiter: the separator of values.
        reading: what to read.
    """
    columns = reading.columns(csv_columns(file, delimiter))
    types = dict.fromkeys(columns, pa.binary())  # values may not be UTF-8
    convert = csv.ConvertOptions(include_columns=columns, column_types=types)
    texts = pa.schema([(columns[0], pa.binary()), *((n, pa.string()) for n in columns[1:])])
    yield reading.videos(texts.empty_table())
    with csv.open_csv(again, CSV_READ, _csv_parse(delimiter), convert) as batches:
        for batch in batches:
            others = [as_text(values) for values in batch.columns[1:]]
            yield reading.videos(pa.table([batch.column(0), *others], columns))


def csv_columns(file: IO[bytes], delimiter: str) -> list[str]:
    """Return the names of the columns of a csv or tsv table."""
    with csv.open_csv(file, CSV_READ, _csv_parse(delimiter)) as header:
        return list(header.schema.names)


def _csv_parse(delimiter: str) -> csv.ParseOptions:
    # Quoted values, such as captions, may contain line breaks.
    return csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)


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
