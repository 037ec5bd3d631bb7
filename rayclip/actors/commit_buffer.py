"""Buffers extracted videos, saves them together, then reports them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from rayclip.actors.job import Attempts
from rayclip.errors import Code, RunStopped, VideoError
from rayclip.io.storage_errors import reason
from rayclip.output.rows import Predictions, Row, Writer
from rayclip.report.results import Failure, VideoResult


@dataclass(frozen=True)
class Extracted:
    """The outcome of a video.

    Attributes:
        position: in its task.
        result: with the arrays, if it has any.
        attempt: number of this attempt.
        predictions: the best texts for each frame; None without ``show_pred``.
    """

    position: int
    result: VideoResult
    attempt: int = 1
    predictions: Predictions | None = None


class CommitBuffer:
    """Holds the extracted videos of a task until they are saved, or passes them on without a
    writer."""

    def __init__(self, writer: Writer | None, attempts: Attempts, keeps_arrays: bool) -> None:
        """Start empty.

        Args:
            writer: saves the videos of this task; None if nothing is saved.
            attempts: learns which videos are extracted and which have ended.
            keeps_arrays: whether results of saved videos keep their arrays.
        """
        self._writer = writer
        self._attempts = attempts
        self._keeps_arrays = keeps_arrays
        self._waiting: list[Extracted] = []
        self._bytes = 0
        self._since = 0.0

    def saved_before(self, video: str) -> int | None:
        """Return how many frames of a video an earlier process of this task saved. None if none, or
        if the arrays are wanted: then the video is extracted again."""
        if self._writer is None or self._keeps_arrays:
            return None
        return self._writer.saved_before(video)

    def take(self, video: Extracted) -> Iterator[VideoResult]:
        """Add a video, and yield the results that can be reported now, in order.

        Raises:
            RunStopped: nothing more can be saved.
        """
        self._waiting.append(video)
        if video.result.extraction is not None and self._writer is not None:
            self._since = self._since or time.monotonic()
            self._bytes += video.result.extraction.clip.nbytes
        if self._may_wait():
            if video.result.extraction is not None:
                self._attempts.extracted(video.position)
        else:
            yield from self.flush()

    def _may_wait(self) -> bool:
        if self._writer is None or not self._bytes:
            return False
        waited_s = time.monotonic() - self._since
        return self._bytes < self._writer.buffer_bytes and waited_s < self._writer.buffer_s

    def flush(self) -> Iterator[VideoResult]:
        """Save the buffered videos, and yield their results.

        Raises:
            RunStopped: nothing more can be saved.
        """
        waiting, self._waiting = self._waiting, []
        self._bytes, self._since = 0, 0.0
        error = self._save(waiting)
        for video in waiting:
            result = video.result
            if self._writer is not None and result.extraction is not None:
                if error is not None:
                    failure = Failure.of(result.video, error, video.attempt)
                    result = VideoResult(result.video, 0, failure)
                elif not self._keeps_arrays:
                    result = replace(result, extraction=None)
            self._attempts.end(video.position, result)
            yield result

    def _save(self, waiting: list[Extracted]) -> VideoError | None:
        """Save the rows among these videos, and return the error if the storage refuses them."""
        rows = [
            Row(
                video.position,
                video.result.video,
                video.result.extraction,
                video.predictions,
            )
            for video in waiting
            if video.result.extraction is not None
        ]
        if self._writer is None or not rows:
            return None
        try:
            self._writer.save(rows)
        except RunStopped:
            raise
        except Exception as error:  # each storage has its own exceptions
            return VideoError("write", Code.WRITE_FAILED, f"writing failed: {reason(error)}")
        return None
