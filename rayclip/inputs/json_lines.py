"""Lists of videos in JSON Lines: an object for each video, with its path under one key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from types import NoneType
from typing import Any, TextIO

import pyarrow as pa

from rayclip.errors import UsageError
from rayclip.inputs.tables import columns_of
from rayclip.inputs.video_rows import ROWS_AT_A_TIME, video_column
from rayclip.output.shard_names import VIDEO

LARGEST = 2**63
LARGE = "large"  # a kind of value besides Python's types: a whole number beyond int64


def json_names(text: TextIO, path: str, column: str) -> Iterator[str]:
    """The paths in a list.

    Raises:
        UsageError: a line has none.
    """
    for number, row in _objects(text, path):
        video = row.get(column)
        if not isinstance(video, str) or not video or not _can_be_a_name(video):
            if column not in row and number == 1:
                columns_of(path, list(row), column, carried=False)
            raise UsageError(f"{path} has {video!r} as {column!r} in line {number}: no path.")
        yield video


def json_schema(text: TextIO, path: str, column: str) -> pa.Schema:
    """The columns that a list gives, from a pass over all of it.

    A key becomes a column of booleans, of int64, of float64 or of strings where all its values are
    of that kind or null, and else one of strings: those that were strings as they are, and JSON of
    all others.
    """
    kinds: dict[str, set[object]] = {}
    for _, row in _objects(text, path):
        for key, value in row.items():
            kinds.setdefault(key, set()).add(_kind(value))
    columns = columns_of(path, list(kinds), column, carried=True) if kinds else [column]
    beside = [(name, _type(kinds[name] - {NoneType})) for name in columns[1:]]
    return pa.schema([(VIDEO, pa.binary()), *beside])


def json_tables(text: TextIO, path: str, column: str, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of a list, in the columns that :func:`json_schema` gave."""
    rows = (row for _, row in _objects(text, path))
    yield schema.empty_table()
    while block := list(islice(rows, ROWS_AT_A_TIME)):
        names = video_column(row[column] for row in block)
        beside = [
            _column([row.get(field.name) for row in block], field.type)
            for field in list(schema)[1:]
        ]
        yield pa.Table.from_arrays([names, *beside], schema=schema)


def _objects(text: TextIO, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UsageError(f"Line {number} of {path} is no JSON object.")
        yield number, row


def _can_be_a_name(video: str) -> bool:
    try:
        return bool(video.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return False


def _kind(value: object) -> object:
    if type(value) is int and not -LARGEST <= value < LARGEST:
        return LARGE
    return type(value)


def _type(kinds: set[object]) -> pa.DataType:
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int}:
        return pa.int64()
    if kinds and kinds <= {int, float}:
        return pa.float64()
    return pa.string()


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_float64(kind):
        values = [None if value is None else float(value) for value in values]
    elif pa.types.is_string(kind) and not all(type(value) in (str, NoneType) for value in values):
        values = [None if value is None else _text(value) for value in values]
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:  # lone surrogates
        texts = [value and value.encode("utf-8", "replace").decode() for value in values]
        return pa.array(texts, kind)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
