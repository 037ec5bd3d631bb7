"""Inputs as rows of Arrow tables: their names, and what the table that lists them has beside."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice

import pyarrow as pa

from rayclip.output.shard_names import VIDEO

BATCH_ROWS = 65_536  # of a list, that are held
NAMES_ONLY = pa.schema([(VIDEO, pa.binary())])


def video_column(videos: Iterable[str]) -> pa.Array:
    """Names as bytes: those of files need not be UTF-8."""
    return pa.array([os.fsencode(video) for video in videos], pa.binary())


def names_in(table: pa.Table) -> list[str]:
    """The names of a table's rows."""
    return list(map(os.fsdecode, table.column(VIDEO).to_pylist()))


def from_video_table(table: pa.Table) -> tuple[list[str], pa.Table | None]:
    """The names of a table's rows, and their other columns, where there are any."""
    extra_columns = table.drop_columns([VIDEO])
    return names_in(table), extra_columns if extra_columns.num_columns else None


def name_tables(
    videos: Iterable[str], rows: int, schema: pa.Schema = NAMES_ONLY
) -> Iterator[pa.Table]:
    """Tables of names, at most so many rows long; all columns beside them are null."""
    videos = iter(videos)
    while names := list(islice(videos, rows)):
        beside = [pa.nulls(len(names), field.type) for field in list(schema)[1:]]
        yield pa.Table.from_arrays([video_column(names), *beside], schema=schema)


def rechunk(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows, in tables of exactly so many; the last one may be shorter."""
    held: list[pa.Table] = []
    room = rows
    for table in tables:
        while table.num_rows:
            part = table.slice(0, room)
            table = table.slice(room)
            held.append(part)
            room -= part.num_rows
            if not room:
                yield pa.concat_tables(held)
                held, room = [], rows
    if held:
        yield pa.concat_tables(held)
