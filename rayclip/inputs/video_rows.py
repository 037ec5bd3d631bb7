"""Inputs as rows of Arrow tables, with their names and extra columns."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import pyarrow as pa

from rayclip.inputs.arrow_arrays import binary_array
from rayclip.output.shard_names import VIDEO

BATCH_ROWS = 65_536  # of a list, in memory at a time
NAMES_ONLY = pa.schema([(VIDEO, pa.binary())])
LACKING = "\0lacking"  # a column that no table of the user's has: models, as bits


def video_column(videos: Iterable[str]) -> pa.Array:
    """Return names as bytes, since file names may not be UTF-8."""
    return binary_array([os.fsencode(video) for video in videos]).cast(pa.binary())


def names_in(table: pa.Table) -> list[str]:
    """Return the names of a table's rows."""
    return list(map(os.fsdecode, table.column(VIDEO).to_pylist()))


class VideoRows(NamedTuple):
    """The rows of a table of videos.

    Attributes:
        names: of the videos.
        extra_columns: the table's other columns; None if there are none.
        lacking: for each video, the numbers of the models that lack it; None if all do.
    """

    names: list[str]
    extra_columns: pa.Table | None
    lacking: list[list[int]] | None


def from_video_table(table: pa.Table) -> VideoRows:
    """Return what is in the rows of a table."""
    lacking = None
    names = names_in(table)
    extra_columns = table.drop_columns([VIDEO])
    if LACKING in table.column_names:
        masks = table.column(LACKING).to_pylist()
        lacking = [[bit for bit in range(mask.bit_length()) if mask >> bit & 1] for mask in masks]
        extra_columns = extra_columns.drop_columns([LACKING])
    return VideoRows(names, extra_columns if extra_columns.num_columns else None, lacking)


def name_tables(
    videos: Iterable[str], rows: int, schema: pa.Schema = NAMES_ONLY
) -> Iterator[pa.Table]:
    """Yield tables of names with at most ``rows`` rows; extra columns of the schema are null."""
    videos = iter(videos)
    while names := list(islice(videos, rows)):
        nulls = [pa.nulls(len(names), field.type) for field in list(schema)[1:]]
        yield pa.Table.from_arrays([video_column(names), *nulls], schema=schema)


def rechunk(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yield the same rows in tables of exactly ``rows`` rows; the last one may be shorter."""
    parts: list[pa.Table] = []
    room = rows
    for table in tables:
        while table.num_rows:
            part = table.slice(0, room)
            table = table.slice(room)
            parts.append(part)
            room -= part.num_rows
            if not room:
                yield pa.concat_tables(parts)
                parts, room = [], rows
    if parts:
        yield pa.concat_tables(parts)
