"""Buffers extracted videos, saves them together, then reports them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rayclip.actors.job import Attempts
from rayclip.errors import Code, RunStopped, VideoError
from rayclip.io.storage_errors import reason
from rayclip.output.rows import Predictions, Row, Writer
from rayclip.report.results import Failure, VideoResult

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Extracted:
    """The outcome of a video.

    Attributes:
        position: in its task.
        results: of each model, by its number; with the arrays, if they have any.
        attempt: number of this attempt.
        predictions: the best texts for each frame; None without ``show_pred``.
        columns: one row with further columns of the video; None if there are none.
    """

    position: int
    results: Mapping[int, VideoResult]
    attempt: int = 1
    predictions: Predictions | None = None
    columns: pa.Table | None = None

    @property
    def has_arrays(self) -> bool:
        return any(result.extraction is not None for result in self.results.values())


class CommitBuffer:
    """Holds the extracted videos of a task until they are saved, or passes them on without a
    writer."""

    def __init__(self, writers: Sequence[Writer], attempts: Attempts, keeps_arrays: bool) -> None:
        """Start empty.

        Args:
            writers: save the videos of this task, one for each model and all of one kind; none if
                nothing is saved.
            attempts: learns which videos are extracted and which have ended.
            keeps_arrays: whether results of saved videos keep their arrays.
        """
        self._writers = writers
        self._attempts = attempts
        self._keeps_arrays = keeps_arrays
        self._waiting: list[Extracted] = []
        self._bytes = 0
        self._since = 0.0

    def saved_before(self, model: int, video: str) -> int | None:
        """Return how many frames of a video an earlier process of this task saved for a model. None
        if none, or if the arrays are wanted: then the video is extracted again."""
        if not self._writers or self._keeps_arrays:
            return None
        return self._writers[model].saved_before(video)

    def take(self, video: Extracted) -> Iterator[VideoResult]:
        """Add a video, and yield the results that can be reported now, in order.

        Raises:
            RunStopped: nothing more can be saved.
        """
        self._waiting.append(video)
        if video.has_arrays and self._writers:
            self._since = self._since or time.monotonic()
            self._bytes += sum(
                result.extraction.clip.nbytes
                for result in video.results.values()
                if result.extraction is not None
            )
            self._bytes += 0 if video.columns is None else video.columns.nbytes
        if self._may_wait():
            if video.has_arrays:
                self._attempts.extracted(video.position)
        else:
            yield from self.flush()

    def _may_wait(self) -> bool:
        if not self._writers or not self._bytes:
            return False
        waited_s = time.monotonic() - self._since
        writer = self._writers[0]
        return self._bytes < writer.buffer_bytes and waited_s < writer.buffer_s

    def flush(self) -> Iterator[VideoResult]:
        """Save the buffered videos, and yield their results.

        Raises:
            RunStopped: nothing more can be saved.
        """
        waiting, self._waiting = self._waiting, []
        self._bytes, self._since = 0, 0.0
        errors = [self._save(waiting, model) for model in range(len(self._writers))]
        for video in waiting:
            results = [
                self._saved(result, video.attempt, errors[model]) if self._writers else result
                for model, result in video.results.items()
            ]
            self._attempts.end(video.position, results)
            yield from results

    def _saved(self, result: VideoResult, attempt: int, error: VideoError | None) -> VideoResult:
        """Return what became of a result that was saved, or could not be."""
        if result.extraction is None:
            return result
        if error is not None:
            failure = Failure.of(result.video, error, attempt, result.model)
            return replace(result, frames=0, failure=failure, extraction=None)
        return result if self._keeps_arrays else replace(result, extraction=None)

    def _save(self, waiting: Sequence[Extracted], model: int) -> VideoError | None:
        """Save the rows of a model, and return the error if the storage refuses them."""
        rows = [
            Row(result.video, result.extraction, video.predictions, video.columns)
            for video in waiting
            if (result := video.results.get(model)) and result.extraction is not None
        ]
        if not rows:
            return None
        try:
            self._writers[model].save(rows)
        except RunStopped:
            raise
        except Exception as error:  # each storage has its own exceptions
            return VideoError("write", Code.WRITE_FAILED, f"writing failed: {reason(error)}")
        return None
