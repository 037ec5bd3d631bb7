"""Ranges of a table's rows: each row is then a part of its video."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from rayclip.errors import UsageError
from rayclip.media.frame_choice import MAX_SECONDS, MICROSECONDS

START, END = "start_s", "end_s"
RANGE_COLUMNS = (START, END)


def as_parts(names: pa.ChunkedArray, table: pa.Table, path: str) -> pa.ChunkedArray:
    """Add to names of videos the range of their row, as :mod:`rayclip.media.fragments` writes it.

    Args:
        names: bytes.
        table: has the columns of ranges, or one of them: numbers or text, in seconds. Null, NaN
            and empty text are the beginning or the end of the video.
        path: name of the table, for messages.

    Raises:
        UsageError: a value is not a time.
    """
    start, end = (_texts(table, column, path) for column in RANGE_COLUMNS)
    comma_end = pc.fill_null(pc.binary_join_element_wise(",", end, ""), "")
    given = pc.binary_join_element_wise("#t=", pc.fill_null(start, ""), comma_end, "")
    is_whole = pc.and_(pc.is_null(start), pc.is_null(end))
    fragments = pc.if_else(is_whole, "", given).cast(pa.binary())
    return pc.binary_join_element_wise(names, fragments, b"")


def _texts(table: pa.Table, column: str, path: str) -> pa.ChunkedArray:
    """The times of a column as decimals without an exponent; null if there are none."""
    if column not in table.column_names:
        return pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
    values = table.column(column)
    try:
        seconds = _as_numbers(values)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise _no_times(path, column, str(error)) from None
    is_time = pc.and_(pc.greater_equal(seconds, 0.0), pc.less_equal(seconds, MAX_SECONDS))
    wrong = values.filter(pc.invert(pc.fill_null(is_time, True)))
    if len(wrong):
        raise _no_times(path, column, f"it has {wrong[0].as_py()!r}")
    us = pc.cast(pc.round(pc.multiply(seconds, float(MICROSECONDS))), pa.int64())
    whole = pc.divide(us, MICROSECONDS)
    rest = pc.cast(pc.subtract(us, pc.multiply(whole, MICROSECONDS)), pa.string())
    decimals = pc.utf8_rtrim(pc.utf8_lpad(rest, 6, "0"), "0")
    text = pc.binary_join_element_wise(pc.cast(whole, pa.string()), decimals, ".")
    return pc.utf8_rtrim(text, ".")


def _as_numbers(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_boolean(values.type) or pa.types.is_temporal(values.type):
        raise pa.ArrowInvalid(f"its type is {values.type}")
    if pa.types.is_float32(values.type) or pa.types.is_float16(values.type):
        values = values.cast(pa.string())  # the shortest decimal, as it was written
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        values = pc.utf8_trim_whitespace(values)
        values = pc.if_else(pc.equal(values, ""), None, values)
    seconds = values.cast(pa.float64())
    return pc.if_else(pc.is_nan(seconds), None, seconds)


def _no_times(path: str, column: str, why: str) -> UsageError:
    return UsageError(
        f"The column {column!r} of {path} has values that are no times in seconds ({why}): correct "
        "them, or set ignore_ranges to extract whole videos."
    )
