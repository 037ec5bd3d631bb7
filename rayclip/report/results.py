"""What became of each video, in memory and as the Arrow rows that travel through Ray Data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from rayclip.errors import Code, Stage, VideoError
from rayclip.inputs.video_rows import video_column
from rayclip.output.rows import Extraction
from rayclip.output.shard_names import VIDEO
from rayclip.output.shard_tables import features_array


@dataclass(frozen=True, slots=True)
class Failure:
    """A video that gave no features: a line of ``failures.jsonl``.

    Attributes:
        video: as it was given.
        stage: where it failed: open, read, decode, encode or write.
        code: a stable word; docs/errors.md lists them all.
        message: one sentence.
        attempts: how often it was tried.
    """

    video: str
    stage: Stage
    code: Code
    message: str
    attempts: int

    @classmethod
    def of(cls, video: str, error: VideoError, attempts: int) -> Failure:
        message = error.message.encode("utf-8", "backslashreplace").decode()  # names may be in it
        return cls(video, error.stage, error.code, message, attempts)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        """Why, in one line, for people; the video is named beside it."""
        return f"{self.stage}/{self.code}: {self.message}"


@dataclass(frozen=True)
class VideoResult:
    """One video, finished.

    Attributes:
        video: as it was given.
        frames: the number of features; 0 where it failed.
        failure: why there are none.
        extraction: the arrays, where they were not written to files.
    """

    video: str
    frames: int
    failure: Failure | None = None
    extraction: Extraction | None = None


@dataclass(frozen=True)
class Estimate:
    """What all inputs would take, after a run that was limited to the first of them.

    Attributes:
        videos: how many there are.
        seconds: wall time at the rate of this run from its first forward pass on; its start, and
            videos that were done before or failed, do not count.
    """

    videos: int
    seconds: float


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        done: videos that now have features because of this run.
        skipped: videos that had them before.
        failed: the others, with their reasons.
        frames: features made by this run.
        seconds: wall time.
        output_path: folder of the features; None where they were printed.
        estimate: for all inputs, where a limit left some out; None where nothing was extracted.
    """

    done: int = 0
    skipped: int = 0
    failed: tuple[Failure, ...] = field(default=())
    frames: int = 0
    seconds: float = 0.0
    output_path: str | None = None
    estimate: Estimate | None = None


class Tally:
    """Results, counted as they come."""

    def __init__(self, skipped: int, output_path: str | None) -> None:
        self._skipped = skipped
        self._output_path = output_path
        self._heard = (0, 0)
        self.frames = 0
        self.done = 0
        self.failed: list[Failure] = []

    def add(self, result: VideoResult) -> None:
        if result.failure is not None:
            self.failed.append(result.failure)
        else:
            self.done += 1
            self.frames += result.frames

    def heard(self, done: int, frames: int) -> None:
        """Note what the machine says is done: of a run that ends early, not all results come."""
        self._heard = done, frames

    def summary(
        self, seconds: float, in_all: int | None = None, encoding_s: float = 0.0
    ) -> Summary:
        """What was done.

        Args:
            seconds: wall time.
            in_all: inputs to estimate the time for, if a limit left some out.
            encoding_s: wall time since the first forward pass.
        """
        done, frames = max((self.done, self.frames), self._heard)
        estimate = None
        if in_all is not None and self.done and encoding_s:
            estimate = Estimate(in_all, in_all * encoding_s / self.done)
        return Summary(
            done,
            self._skipped,
            tuple(self.failed),
            frames,
            seconds,
            self._output_path,
            estimate,
        )


def result_schema(dim: int) -> pa.Schema:
    """The row of one video; the arrays are null where it failed or where files were written."""
    return pa.schema(
        [
            (VIDEO, pa.binary()),
            ("clip", pa.list_(pa.list_(pa.float32(), dim))),
            ("timestamps_ms", pa.list_(pa.float64())),
            ("fps", pa.float64()),
            ("frames", pa.int64()),
            ("stage", pa.string()),
            ("code", pa.string()),
            ("error", pa.string()),
            ("attempts", pa.int64()),
        ]
    )


def to_table(results: Iterable[VideoResult], dim: int) -> pa.Table:
    """One row for each result, in order, in :func:`result_schema`."""
    results = list(results)
    schema = result_schema(dim)
    extractions = [result.extraction for result in results]
    failures = [result.failure for result in results]
    columns = [
        video_column(result.video for result in results),
        features_array([e and e.clip for e in extractions], schema.field("clip").type),
        pa.array([e and e.timestamps_ms for e in extractions], pa.list_(pa.float64())),
        pa.array([e and e.fps for e in extractions], pa.float64()),
        pa.array([result.frames for result in results], pa.int64()),
        pa.array([f and f.stage for f in failures], pa.string()),
        pa.array([f and f.code for f in failures], pa.string()),
        pa.array([f and f.message for f in failures], pa.string()),
        pa.array([f and f.attempts for f in failures], pa.int64()),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def from_table(table: pa.Table) -> Iterator[VideoResult]:
    """The results in a table of :func:`result_schema`."""
    clip = table.column("clip").combine_chunks()
    small = table.drop_columns(["clip"]).to_pylist()
    for row, features in zip(small, clip, strict=True):
        video = os.fsdecode(row[VIDEO])
        failure = extraction = None
        if row["error"] is not None:
            failure = Failure(video, row["stage"], Code(row["code"]), row["error"], row["attempts"])
        elif features.is_valid:
            rows = features.values
            extraction = Extraction(
                rows.flatten().to_numpy().reshape(len(rows), -1),
                np.asarray(row["timestamps_ms"], np.float64),
                row["fps"],
            )
        yield VideoResult(video, row["frames"], failure, extraction)
