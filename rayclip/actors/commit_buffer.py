"""Extracted videos on their way into the output folder: saved together, then reported."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from rayclip.actors.job import Attempts
from rayclip.errors import Code, RunStopped, VideoError
from rayclip.io.storage_errors import reason
from rayclip.output.rows import Extraction, Row, Writer
from rayclip.report.results import Failure, VideoResult


@dataclass(frozen=True)
class Extracted:
    """What became of a video.

    Attributes:
        position: in its group.
        result: with the arrays, where there are any.
        attempt: the number of this attempt at it.
        predictions: the content of its csv file, where it has one.
    """

    position: int
    result: VideoResult
    attempt: int = 1
    predictions: bytes | None = None


class CommitBuffer:
    """Keeps what was made of a group's videos until it is saved; without a writer, hands it on."""

    def __init__(self, writer: Writer | None, attempts: Attempts, keeps_arrays: bool) -> None:
        """Nothing is made yet.

        Args:
            writer: saves the videos of this group; None where nothing is saved.
            attempts: who is told what is at work, and what is done.
            keeps_arrays: whether results of saved videos still have them.
        """
        self._writer = writer
        self._attempts = attempts
        self._keeps_arrays = keeps_arrays
        self._waiting: list[Extracted] = []
        self._bytes = 0
        self._since = 0.0

    def saved_before(self, video: str) -> int | None:
        """The frames of a video that an earlier process of this group saved; None also where its
        arrays are wanted: it is made again."""
        if self._writer is None or self._keeps_arrays:
            return None
        return self._writer.saved_before(video)

    def refuse_too_large(self, extraction: Extraction) -> None:
        """Make sure that the writer can take a video.

        Raises:
            VideoError: it has too many features.
        """
        largest = None if self._writer is None else self._writer.max_bytes
        if largest is not None and extraction.clip.nbytes > largest:
            raise VideoError(
                "write",
                Code.TOO_LARGE_FOR_A_ROW,
                f"its features are {extraction.clip.nbytes / 2**20:.0f} MB, and save_parquet takes "
                f"{largest / 2**20:.0f} for a video: use save_numpy, or fewer frames a second",
            )

    def take(self, made: Extracted) -> Iterator[VideoResult]:
        """Take a video in; gives the results that can be reported now, in order.

        Raises:
            RunStopped: nothing can be saved any more.
        """
        self._waiting.append(made)
        if made.result.extraction is not None and self._writer is not None:
            self._since = self._since or time.monotonic()
            self._bytes += made.result.extraction.clip.nbytes
        if self._may_wait():
            if made.result.extraction is not None:
                self._attempts.made(made.position)
        else:
            yield from self.flush()

    def _may_wait(self) -> bool:
        if self._writer is None or not self._bytes:
            return False
        waited_s = time.monotonic() - self._since
        return self._bytes < self._writer.buffer_bytes and waited_s < self._writer.buffer_s

    def flush(self) -> Iterator[VideoResult]:
        """Save what waits, and give its results.

        Raises:
            RunStopped: nothing can be saved any more.
        """
        waiting, self._waiting = self._waiting, []
        self._bytes, self._since = 0, 0.0
        error = self._save(waiting)
        for made in waiting:
            result = made.result
            if self._writer is not None and result.extraction is not None:
                if error is not None:
                    failure = Failure.of(result.video, error, made.attempt)
                    result = VideoResult(result.video, 0, failure)
                elif not self._keeps_arrays:
                    result = replace(result, extraction=None)
            self._attempts.end(made.position, result)
            yield result

    def _save(self, waiting: list[Extracted]) -> VideoError | None:
        """Save the rows among what waits; what went wrong, where it is their own trouble."""
        rows = [
            Row(made.position, made.result.video, made.result.extraction, made.predictions)
            for made in waiting
            if made.result.extraction is not None
        ]
        if self._writer is None or not rows:
            return None
        try:
            self._writer.save(rows)
        except RunStopped:
            raise
        except Exception as error:  # each storage has exceptions of its own
            return VideoError("write", Code.WRITE_FAILED, f"writing failed: {reason(error)}")
        return None
