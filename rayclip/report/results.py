"""The result of each video, in memory and as Arrow rows that pass through Ray Data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from rayclip.errors import Code, Stage, VideoError
from rayclip.inputs.video_rows import video_column
from rayclip.output.rows import Extraction
from rayclip.output.shard_names import VIDEO
from rayclip.output.shard_tables import features_array


@dataclass(frozen=True, slots=True)
class Failure:
    """A video without features: a line of ``failures.jsonl``.

    Attributes:
        video: the input as given.
        stage: the stage that failed: open, read, decode, encode or write.
        code: a stable identifier; docs/errors.md lists all codes.
        message: the reason in one sentence.
        attempts: how often it was tried.
        model: the model without features, if the run has several; else it is empty.
    """

    video: str
    stage: Stage
    code: Code
    message: str
    attempts: int
    model: str = ""

    @classmethod
    def of(cls, video: str, error: VideoError, attempts: int, model: str = "") -> Failure:
        # A message may name a file whose name is not valid UTF-8.
        message = error.message.encode("utf-8", "backslashreplace").decode()
        return cls(video, error.stage, error.code, message, attempts, model)

    def as_dict(self) -> dict[str, Any]:
        """The line of ``failures.jsonl``, which each model has in its own folder."""
        line = asdict(self)
        del line["model"]
        return line

    def __str__(self) -> str:
        """The reason in one line, without the name of the video."""
        return f"{self.stage}/{self.code}: {self.message}"


class TarCounts(NamedTuple):
    """How many videos a tar file has, as far as it was read.

    Attributes:
        videos: all of them.
        skipped: those that were done before.
    """

    videos: int
    skipped: int


@dataclass(frozen=True)
class VideoResult:
    """The result of one video by one model, or of one tar file after those of its videos.

    Attributes:
        video: the input as given.
        frames: number of features; 0 if it failed.
        failure: why it failed; None if it did not.
        extraction: the arrays; None if it failed or they were written to files.
        model: the model, if the run has several; else it is empty.
        tar: of a tar file; None for a video.
    """

    video: str
    frames: int
    failure: Failure | None = None
    extraction: Extraction | None = None
    model: str = ""
    tar: TarCounts | None = None


@dataclass(frozen=True)
class Estimate:
    """The time for all inputs, estimated from a run that ``limit`` restricted to the first ones.

    Attributes:
        videos: number of inputs.
        seconds: wall time at the rate of this run since its first forward pass. Startup, skipped
            and failed videos do not count.
    """

    videos: int
    seconds: float


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        done: videos whose features this run extracted, by all models that lacked them.
        skipped: videos that were done before.
        failed: videos that failed, with the reasons; once for each model that has no features.
        frames: frames whose features this run extracted.
        seconds: wall time.
        output_path: folder of the features, or of all models' folders; None if they were printed.
        estimate: the time for all inputs, if ``limit`` left some out and a video was extracted.
        failed_before: videos in finished tar files that failed in earlier runs; only ``overwrite``
            tries them again.
    """

    done: int = 0
    skipped: int = 0
    failed: tuple[Failure, ...] = field(default=())
    frames: int = 0
    seconds: float = 0.0
    output_path: str | None = None
    estimate: Estimate | None = None
    failed_before: int = 0


class Tally:
    """Counts results as they arrive."""

    def __init__(self, skipped: int, output_path: str | None, failed_before: int = 0) -> None:
        self._skipped = skipped
        self._failed_before = failed_before
        self._output_path = output_path
        self._reported = (0, 0)
        self.failed: list[Failure] = []
        self._done = self._frames = 0  # of earlier videos
        self._video: list[VideoResult] = []
        self._last_tar = ""

    def add(self, result: VideoResult) -> None:
        """Count a result. Those of a video by several models follow one another; it counts once."""
        if result.failure is not None:
            self.failed.append(result.failure)
        if result.tar is not None:
            if result.video != self._last_tar:  # the first of its models
                self._skipped += result.tar.skipped
                self._last_tar = result.video
            return
        if any(r.video != result.video or r.model == result.model for r in self._video):
            self._done, self._frames, self._video = self.done, self.frames, []
        self._video.append(replace(result, extraction=None))

    @property
    def done(self) -> int:
        """Number of videos that no model failed on."""
        return self._done + (bool(self._video) and not any(r.failure for r in self._video))

    @property
    def frames(self) -> int:
        """Frames whose features were extracted."""
        return self._frames + frames_of(self._video)

    def report(self, done: int, frames: int) -> None:
        """Record the control actor's totals: if a run ends early, some results never arrive."""
        self._reported = done, frames

    def summary(
        self, seconds: float, total_inputs: int | None = None, encoding_s: float = 0.0
    ) -> Summary:
        """Summarize the run.

        Args:
            seconds: wall time.
            total_inputs: number of all inputs, if ``limit`` left some out.
            encoding_s: wall time since the first forward pass.
        """
        done, frames = max((self.done, self.frames), self._reported)
        estimate = None
        if total_inputs is not None and self.done and encoding_s:
            estimate = Estimate(total_inputs, total_inputs * encoding_s / self.done)
        return Summary(
            done,
            self._skipped,
            tuple(self.failed),
            frames,
            seconds,
            self._output_path,
            estimate,
            self._failed_before,
        )


def frames_of(results: Iterable[VideoResult]) -> int:
    """The frames of a video that some model has features of."""
    return max((result.frames for result in results), default=0)


def result_schema(dim: int | None) -> pa.Schema:
    """The schema of one result's row; the arrays are null if it failed or files were written.

    Args:
        dim: features per frame; None if the models differ in it.
    """
    return pa.schema(
        [
            (VIDEO, pa.binary()),
            ("model", pa.string()),
            ("clip", pa.list_(pa.list_(pa.float32(), -1 if dim is None else dim))),
            ("timestamps_ms", pa.list_(pa.float64())),
            ("fps", pa.float64()),
            ("frames", pa.int64()),
            ("stage", pa.string()),
            ("code", pa.string()),
            ("error", pa.string()),
            ("attempts", pa.int64()),
            ("tar_videos", pa.int64()),
            ("tar_skipped", pa.int64()),
        ]
    )


def to_table(results: Iterable[VideoResult], dim: int | None) -> pa.Table:
    """A table of :func:`result_schema` with one row per result, in order."""
    results = list(results)
    schema = result_schema(dim)
    extractions = [result.extraction for result in results]
    failures = [result.failure for result in results]
    columns = [
        video_column(result.video for result in results),
        pa.array([result.model for result in results], pa.string()),
        features_array([e and e.clip for e in extractions], schema.field("clip").type),
        pa.array([e and e.timestamps_ms for e in extractions], pa.list_(pa.float64())),
        pa.array([e and e.fps for e in extractions], pa.float64()),
        pa.array([result.frames for result in results], pa.int64()),
        pa.array([f and f.stage for f in failures], pa.string()),
        pa.array([f and f.code for f in failures], pa.string()),
        pa.array([f and f.message for f in failures], pa.string()),
        pa.array([f and f.attempts for f in failures], pa.int64()),
        pa.array([result.tar and result.tar.videos for result in results], pa.int64()),
        pa.array([result.tar and result.tar.skipped for result in results], pa.int64()),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def from_table(table: pa.Table) -> Iterator[VideoResult]:
    """The results in a table of :func:`result_schema`."""
    clip = table.column("clip").combine_chunks()
    rows = table.drop_columns(["clip"]).to_pylist()
    for row, features in zip(rows, clip, strict=True):
        video, model = os.fsdecode(row[VIDEO]), row["model"]
        failure = extraction = None
        if row["error"] is not None:
            code, message = Code(row["code"]), row["error"]
            failure = Failure(video, row["stage"], code, message, row["attempts"], model)
        elif features.is_valid:
            frames = features.values
            extraction = Extraction(
                frames.flatten().to_numpy().reshape(len(frames), -1),
                np.asarray(row["timestamps_ms"], np.float64),
                row["fps"],
            )
        is_tar = row["tar_videos"] is not None
        tar = TarCounts(row["tar_videos"], row["tar_skipped"]) if is_tar else None
        yield VideoResult(video, row["frames"], failure, extraction, model, tar)
