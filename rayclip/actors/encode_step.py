"""The step that :func:`rayclip.encode` adds to a Ray Data pipeline."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from rayclip.actors.decode_task import extract_videos
from rayclip.actors.job import ExtractionJob, ModelJob, TaskVideo
from rayclip.actors.segment_tasks import Division
from rayclip.errors import Code, UsageError
from rayclip.report.results import Failure, VideoResult, to_table
from rayclip.session.resources import EncoderResources

SHARED = ("timestamps_ms", "fps")  # columns that are the same for all models


@dataclass(frozen=True)
class EncodeStep:
    """What the tasks of the step need.

    Attributes:
        job: what to do with each video.
        dims: features per frame of each model.
        control: the control actor.
        resources: what its encoders request.
        division: how long videos are divided.
        column: of paths and URLs, or of encoded videos.
        holds_videos: whether the column holds encoded videos.
        prefix: of the added columns.
    """

    job: ExtractionJob
    dims: Sequence[int]
    control: Any
    resources: EncoderResources
    division: Division
    column: str
    holds_videos: bool
    prefix: str

    @property
    def clip_columns(self) -> list[str]:
        """The column of features of each model."""
        return [self._column_of("clip", model) for model in self.job.models]

    @property
    def error_columns(self) -> list[str]:
        """The column of errors of each model."""
        return [self._column_of("error", model) for model in self.job.models]

    @property
    def added_columns(self) -> list[str]:
        """The columns that the step adds."""
        shared = [self.prefix + name for name in SHARED]
        return [*self.clip_columns, *shared, *self.error_columns]

    def _column_of(self, name: str, model: ModelJob) -> str:
        return f"{self.prefix}{name}_{model.label}" if model.label else self.prefix + name

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
        taken = [name for name in self.added_columns if name in names]
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
    given = [(row, value) for row, value in enumerate(values) if value is not None]
    if step.holds_videos:
        names = [f"row {row}" for row, _ in given]
        videos: Iterable[TaskVideo] = (
            TaskVideo(row, name, step.job.numbers, content=io.BytesIO(value))
            for name, (row, value) in zip(names, given, strict=True)
        )
    else:
        names = [value for _, value in given]
        videos = step.job.videos(names)
    extracted = iter(extract_videos(names, videos, step.job, step.control, step.division))
    models = step.job.models
    rows = [[_NO_VIDEO if value is None else next(extracted) for _ in models] for value in values]
    for name, column in zip(step.added_columns, _columns(rows, step.dims), strict=True):
        table = table.append_column(name, column)
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


def _columns(
    rows: Sequence[Sequence[VideoResult]], dims: Sequence[int]
) -> list[pa.ChunkedArray | pa.Array]:
    """Return the columns that the step adds, given the results of each row."""
    tables = [to_table([row[model] for row in rows], dim) for model, dim in enumerate(dims)]
    any_of_them = to_table([_first_done(row) for row in rows], None)
    errors = [
        [None if row[model].failure is None else str(row[model].failure) for row in rows]
        for model in range(len(dims))
    ]
    return [
        *(table.column("clip") for table in tables),
        *(any_of_them.column(name) for name in SHARED),
        *(pa.array(texts, pa.string()) for texts in errors),
    ]


def _first_done(results: Sequence[VideoResult]) -> VideoResult:
    """Return the first result that did not fail, without its features; else the first."""
    done = next((result for result in results if result.failure is None), results[0])
    if done.extraction is None:
        return done
    return replace(done, extraction=done.extraction._replace(clip=done.extraction.clip[:0]))
