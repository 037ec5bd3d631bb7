"""The per-video step: decode, send frames to an encoder, gather the features, commit.

The same code runs inside a Ray task and, without Ray, in the user's own process. It never imports
torch or Ray.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rayclip.errors import RunStopped, VideoError
from rayclip.inputs import absolute, stem
from rayclip.preprocess import resize_crop
from rayclip.results import Failure, VideoResult
from rayclip.storage import Extraction, OutputFolder
from rayclip.video import open_video, upright_rgb

CHUNK_FRAMES = 64
WINDOW_FRAMES = 8 * CHUNK_FRAMES  # 77 MB at 224 pixels

logger = logging.getLogger(__name__)


class Pending(Protocol):
    """A chunk on its way through an encoder."""

    def done(self) -> bool: ...

    def result(self) -> NDArray[np.float32]:
        """Wait for float32 ``[n, D]``; raises what went wrong in the encoder."""
        ...


class Encoders(Protocol):
    """Where frames go."""

    def submit(self, frames: NDArray[np.uint8]) -> Pending:
        """Send uint8 ``[n, n_px, n_px, 3]``."""
        ...


class Attempts(Protocol):
    """Who remembers, when a worker process dies, which videos of its group it was busy with."""

    @property
    def again(self) -> bool:
        """Whether this group was begun before, by a process that died."""
        ...

    def begin(self, position: int) -> int:
        """Note that the video at this place of the group is begun; the number of its attempt."""
        ...

    def end(self, position: int, result: VideoResult) -> None: ...


class FirstAttempts:
    """Attempts in the user's own process, which nothing survives to count."""

    again = False

    def begin(self, position: int) -> int:
        return 1

    def end(self, position: int, result: VideoResult) -> None:
        pass


@dataclass(frozen=True)
class ExtractionJob:
    """What a decoding task needs to know.

    Attributes:
        n_px: the model's input resolution.
        extraction_fps: output frames per second; None for every frame.
        folder: where features are committed; None hands the arrays on.
        max_attempts: how often a video may take its worker down.
        folder_of_inputs: where relative paths begin: workers have working folders of their own.
        storage_options: given to fsspec for inputs.
    """

    n_px: int
    extraction_fps: Fraction | None
    folder: OutputFolder | None
    max_attempts: int
    folder_of_inputs: str
    storage_options: dict[str, Any] = field(repr=False)


@dataclass
class _Sent:
    """A chunk that was sent, and later its features or its error."""

    pending: Pending
    frames: int
    features: NDArray[np.float32] | None = None
    error: Exception | None = None

    def settle(self) -> None:
        if self.features is not None or self.error is not None:
            return
        try:
            self.features = self.pending.result()
        except RunStopped:
            raise
        except Exception as error:
            self.error = error


@dataclass
class _OpenVideo:
    """A video whose frames are sent and whose features are not all back."""

    video: str
    position: int
    attempt: int
    fps: float = float("nan")
    timestamps_ms: list[tuple[float, ...]] = field(default_factory=list)
    chunks: list[_Sent] = field(default_factory=list)
    error: VideoError | None = None

    def ready(self) -> bool:
        return all(chunk.pending.done() for chunk in self.chunks)

    def extraction(self) -> Extraction:
        """Wait for the features and put them in order; a repeated frame is repeated here."""
        for chunk in self.chunks:
            chunk.settle()
        if self.error is not None:
            raise self.error
        features = []
        for chunk in self.chunks:
            if chunk.features is None:
                raise VideoError(
                    "encode", "encoder_failed", f"the encoder failed: {chunk.error}"
                ) from chunk.error
            features.append(chunk.features)
        shown = np.concatenate(features)
        if not np.isfinite(shown).all():
            raise VideoError("encode", "not_finite", "the model gave features that are not finite")
        return Extraction(
            np.repeat(shown, [len(times) for times in self.timestamps_ms], axis=0),
            np.array([time for times in self.timestamps_ms for time in times], np.float64),
            self.fps,
        )


class VideoExtractor:
    """Turns videos into results, decoding the next ones while the features of the last are made.

    Frames in flight are bounded by :data:`WINDOW_FRAMES`.
    """

    def __init__(self, job: ExtractionJob, encoders: Encoders, attempts: Attempts) -> None:
        self._job = job
        self._encoders = encoders
        self._attempts = attempts
        self._open: deque[_OpenVideo] = deque()
        self._in_flight: deque[_Sent] = deque()
        self._frames_in_flight = 0

    def run(self, videos: Iterable[str]) -> Iterator[VideoResult]:
        """One result for each video, in order. A bad video is a result, not an exception.

        Raises:
            RunStopped: no encoder is left.
        """
        alone = self._attempts.again  # one may be a killer: none shares another's fate
        for position, video in enumerate(videos):
            attempt = self._attempts.begin(position)
            before = self._from_before(video, attempt) if alone else None
            if before is not None:
                self._attempts.end(position, before)
                yield before
                continue
            self._open.append(self._decode(video, position, attempt))
            yield from self._finish(everything=alone)
        yield from self._finish(everything=True)

    def _from_before(self, video: str, attempt: int) -> VideoResult | None:
        """What an earlier process of this group, which died, leaves to report."""
        if self._job.folder is not None:
            frames = self._job.folder.committed_frames(stem(video))
            if frames is not None:
                return VideoResult(video, frames)
        if attempt <= self._job.max_attempts:
            return None
        error = VideoError(
            "decode", "worker_died", f"its worker process died in {attempt - 1} attempts"
        )
        return VideoResult(video, 0, Failure.of(video, error, attempt - 1))

    def _decode(self, video: str, position: int, attempt: int) -> _OpenVideo:
        opened = _OpenVideo(video, position, attempt)
        squares: list[NDArray[np.uint8]] = []
        try:
            place = absolute(video, self._job.folder_of_inputs)
            with open_video(place, self._job.storage_options) as source:
                opened.fps = source.fps
                for shown in source.shown_frames(self._job.extraction_fps):
                    squares.append(resize_crop(upright_rgb(shown.frame), self._job.n_px))
                    opened.timestamps_ms.append(shown.timestamps_ms)
                    if len(squares) == CHUNK_FRAMES:
                        self._send(opened, squares)
                        squares = []
            if squares:
                self._send(opened, squares)
        except VideoError as error:
            opened.error = error
        except RunStopped:
            raise
        except Exception as error:  # a bug of ours must not take the other videos along
            logger.exception("decoding %s", video)
            reason = f"{type(error).__name__}: {error}"
            opened.error = VideoError("decode", "internal_error", reason)
        return opened

    def _send(self, opened: _OpenVideo, squares: list[NDArray[np.uint8]]) -> None:
        while self._frames_in_flight + len(squares) > WINDOW_FRAMES and self._in_flight:
            oldest = self._in_flight.popleft()
            oldest.settle()
            self._frames_in_flight -= oldest.frames
        sent = _Sent(self._encoders.submit(np.stack(squares)), len(squares))
        opened.chunks.append(sent)
        self._in_flight.append(sent)
        self._frames_in_flight += sent.frames

    def _finish(self, everything: bool) -> Iterator[VideoResult]:
        """Finish the open videos in order: those that are ready, or everything."""
        while self._open and (everything or self._open[0].ready()):
            opened = self._open.popleft()
            result = self._result(opened)
            self._attempts.end(opened.position, result)
            yield result

    def _result(self, opened: _OpenVideo) -> VideoResult:
        try:
            extraction = opened.extraction()
            if self._job.folder is None:
                return VideoResult(opened.video, len(extraction.clip), extraction=extraction)
            try:
                self._job.folder.commit(stem(opened.video), extraction)
            except Exception as error:  # each storage has exceptions of its own
                raise VideoError("write", "write_failed", f"writing failed: {error}") from error
            return VideoResult(opened.video, len(extraction.clip))
        except VideoError as error:
            failure = Failure.of(opened.video, error, opened.attempt)
            return VideoResult(opened.video, 0, failure)
