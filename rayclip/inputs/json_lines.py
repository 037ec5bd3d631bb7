"""Read lists of videos in JSON Lines: one object for each video, with its path under a key."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import json

from rayclip.errors import UsageError
from rayclip.inputs.ranges import RANGE_COLUMNS
from rayclip.inputs.tables import TableReading, as_text
from rayclip.inputs.video_rows import NAMES_ONLY

BLOCK_BYTES = 4 * 2**20  # parsed at a time


def json_tables(file: IO[bytes], again: IO[bytes], reading: TableReading) -> Iterator[pa.Table]:
    """Yield the rows of a list as tables; the first one is empty and has the schema.

    With ``extra_columns``, a first pass over the list infers the types. Text that looks like a date
    stays text.

    Args:
        file: the list.
        again: the same file, opened a second time.
        reading: what to read.

    Raises:
        UsageError: a line is not an object or has no path, or the values of a key differ in type.
    """
    found = _schema(file, reading)
    if found is None:
        yield NAMES_ONLY.empty_table()
        return
    columns = reading.columns(found.names)
    others = [found.field(name) for name in columns[1:]]
    if reading.with_ranges and not reading.extra_columns:  # the first line may lack these keys
        others = [pa.field(name, pa.float64()) for name in RANGE_COLUMNS]
    schema = pa.schema([(columns[0], pa.string()), *others])
    yield reading.videos(schema.empty_table())
    for line, block in _blocks(again):
        table = _parsed(block, line, reading.path, schema)
        for index, field in enumerate(schema):
            if index and field.type == pa.string():  # the file may not be UTF-8
                texts = [as_text(values.cast(pa.binary())) for values in table[index].chunks]
                table = table.set_column(index, field, pa.chunked_array(texts, pa.string()))
        yield reading.videos(table)


def json_columns(file: IO[bytes], path: str) -> list[str]:
    """Return the keys in the first lines of a list, some MB of them."""
    for line, block in _blocks(file):
        return list(_parsed(block, line, path).column_names)
    return []


def _schema(file: IO[bytes], reading: TableReading) -> pa.Schema | None:
    """Return the keys of a list and their types; without ``extra_columns``, only the first line's
    keys. None if the list is empty."""
    found = None
    for line, block in _blocks(file):
        if not reading.extra_columns:
            return _parsed(block.lstrip().partition(b"\n")[0], line, reading.path).schema
        schema = _with_strings(_parsed(block, line, reading.path).schema, pa.types.is_timestamp)
        try:
            found = pa.unify_schemas([found or schema, schema], promote_options="permissive")
            pq.ParquetWriter(io.BytesIO(), found).close()
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise _unusable(reading.path, f"{error}; at or after line {line}") from error
    return found and _with_strings(found, pa.types.is_null)


def _with_strings(schema: pa.Schema, is_replaced: Callable[[pa.DataType], bool]) -> pa.Schema:
    """Return the schema with strings instead of these types."""
    return pa.schema(
        (field.name, pa.string() if is_replaced(field.type) else field.type) for field in schema
    )


def _parsed(block: bytes, line: int, path: str, schema: pa.Schema | None = None) -> pa.Table:
    """Parse lines to a table with all keys, or with those in a schema."""
    read = json.ReadOptions(use_threads=False, block_size=len(block) + 1)  # as a single block
    others = "infer" if schema is None else "ignore"
    parse = json.ParseOptions(explicit_schema=schema, unexpected_field_behavior=others)
    try:
        return json.read_json(io.BytesIO(block), read, parse)
    except pa.ArrowInvalid as error:
        raise _unusable(path, f"{error}; row 0 is line {line}") from error


def _unusable(path: str, why: str) -> UsageError:
    return UsageError(
        f"{path} cannot be read as JSON Lines ({why}): write one object on each line, and values "
        "of one type, or null, under each key."
    )


def _blocks(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield complete lines, some MB at a time, with the number of the first one, from 1."""
    line, rest = 1, b""
    while data := file.read(BLOCK_BYTES):
        whole, end, rest = (rest + data).rpartition(b"\n")
        if whole.strip():
            yield line, whole
        line += whole.count(b"\n") + len(end)
    if rest.strip():
        yield line, rest
