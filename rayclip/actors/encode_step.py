"""The step that :func:`rayclip.encode` adds to a Ray Data pipeline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from rayclip.actors.decode_task import extract_videos
from rayclip.actors.job import ExtractionJob
from rayclip.actors.segment_tasks import Division
from rayclip.errors import Code, UsageError
from rayclip.report.results import Failure, VideoResult, to_table
from rayclip.session.resources import EncoderResources

ADDED = ("clip", "timestamps_ms", "fps", "error")
"""The columns that the step adds, without their prefix."""


@dataclass(frozen=True)
class EncodeStep:
    """What the tasks of the step need.

    Attributes:
        job: what to do with each video.
        dim: features per frame.
        control: the control actor.
        resources: what its encoders request.
        division: how long videos are divided.
        column: of paths and URLs, or of encoded videos.
        holds_videos: whether the column holds encoded videos.
        prefix: of the added columns.
    """

    job: ExtractionJob
    dim: int
    control: Any
    resources: EncoderResources
    division: Division
    column: str
    holds_videos: bool
    prefix: str

    def check_columns(self, names: Iterable[str]) -> None:
        """Check the columns of the input.

        Raises:
            UsageError: the input column is missing, or a column to add exists already.
        """
        names = list(names)
        if self.column not in names:
            raise UsageError(
                f"The dataset has no column {self.column!r}; its columns are: {', '.join(names)}."
            )
        taken = [self.prefix + name for name in ADDED if self.prefix + name in names]
        if taken:
            raise UsageError(
                f"The dataset already has a column {taken[0]!r}: give encode a prefix for the "
                "columns that it adds, such as prefix='b32_'."
            )


def encode_videos(table: pa.Table, *, step: EncodeStep) -> pa.Table:
    """Run the step on some rows, and return them with the feature columns.

    Raises:
        UsageError: the table has the wrong columns.
        RunStopped: no encoder can start, or a storage refuses the credentials.
    """
    step.check_columns(table.column_names)
    values = _values(table.column(step.column), step)
    if step.holds_videos:
        videos = {f"row {row}": value for row, value in enumerate(values) if value is not None}
        job = replace(step.job, encoded=videos)
        encoded = extract_videos(videos, job, step.control, None)
    else:
        paths = [value for value in values if value is not None]
        encoded = extract_videos(paths, step.job, step.control, step.division)
    extracted = iter(encoded)
    results = [_NO_VIDEO if value is None else next(extracted) for value in values]
    for name, column in zip(ADDED, _columns(results, step.dim), strict=True):
        table = table.append_column(step.prefix + name, column)
    return table


_NO_VIDEO = VideoResult(
    "", 0, Failure("", "open", Code.NO_VIDEO, "there is no video in this row", 0)
)


def _values(column: pa.ChunkedArray, step: EncodeStep) -> list[Any]:
    kind = column.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    if not (pa.types.is_null(kind) or (binary if step.holds_videos else text)):
        wanted = "encoded videos as bytes" if step.holds_videos else "paths or URLs as strings"
        raise UsageError(f"The column {step.column!r} has values of type {kind}, not {wanted}.")
    return list(column.to_pylist())


def _columns(results: list[VideoResult], dim: int) -> list[pa.ChunkedArray | pa.Array]:
    table = to_table(results, dim)
    errors = [None if result.failure is None else str(result.failure) for result in results]
    return [*(table.column(name) for name in ADDED[:-1]), pa.array(errors, pa.string())]
