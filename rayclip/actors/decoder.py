"""The per-video step: decode, send frames to an encoder, gather the features, commit.

The same code runs inside a Ray task and, without Ray, in the user's own process. It never imports
torch or Ray.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rayclip.actors.attempts import why_to_give_up
from rayclip.actors.gathering import Chunk, OpenVideo, Pending
from rayclip.actors.job import Attempts, Encoders, ExtractionJob, SegmentFailed, Segments
from rayclip.actors.saving import Made, Saving
from rayclip.errors import CredentialsRefused, RunStopped, VideoError
from rayclip.inputs.videos import absolute
from rayclip.io import patience
from rayclip.io.crash_log import Death
from rayclip.io.faults import passes, why_to_stop
from rayclip.io.patience import GaveUp, persistently
from rayclip.media.decoding import ShownFrame
from rayclip.media.frames import WantedFrames, open_shown
from rayclip.media.groups import Irregular
from rayclip.media.orientation import upright_rgb
from rayclip.media.reencode import reencode
from rayclip.media.sampling import FrameChoice
from rayclip.media.source import VideoSource
from rayclip.media.video import Miscounted, open_video
from rayclip.model.preprocess import resize_crop, resize_crop_fast
from rayclip.model.zeroshot import predictions_csv
from rayclip.output.safe_names import output_name
from rayclip.report.results import Failure, VideoResult

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_FRAMES = 64
WINDOW_FRAMES = 8 * CHUNK_FRAMES  # 77 MB at 224 pixels

logger = logging.getLogger(__name__)


def _watching_nothing(video: str) -> AbstractContextManager[None]:
    return nullcontext()


class VideoExtractor:
    """Turns videos into results, decoding the next ones while the features of the last are made.

    Frames in flight are bounded by :data:`WINDOW_FRAMES`.
    """

    def __init__(
        self,
        job: ExtractionJob,
        encoders: Encoders,
        attempts: Attempts,
        segments: Segments | None = None,
        watching: Callable[[str], AbstractContextManager[None]] = _watching_nothing,
        source_of: Callable[[str], VideoSource] | None = None,
    ) -> None:
        """Prepare to extract.

        Args:
            job: what to do with each video.
            encoders: where frames go.
            attempts: who counts the attempts.
            segments: who decodes long videos.
            watching: entered for each video while it is decoded, to end a process that hangs.
            source_of: where a video of this name is read from; None takes the name for its place.
        """
        self._job = job
        self._segments = segments
        self._watching = watching
        self._encoders = encoders
        self._attempts = attempts
        self._source_of = source_of or partial(absolute, folder=job.folder_of_inputs)
        self._resize_crop = resize_crop_fast if job.resize == "fast" else resize_crop
        self._open: deque[OpenVideo] = deque()
        self._in_flight: dict[Pending, Chunk] = {}
        self._frames_in_flight = 0

    def run(self, videos: Iterable[str], carried: pa.Table | None = None) -> Iterator[VideoResult]:
        """One result for each video of a group, in order: those that are saved come when they are.
        A bad video is a result, not an exception.

        Args:
            videos: of the group.
            carried: other columns of them, for the folder.

        Raises:
            RunStopped: no encoder is left, or nothing can be saved.
        """
        videos = list(videos)
        folder = self._job.folder
        writer = folder.writer(videos, carried) if folder else None
        saving = Saving(writer, self._attempts, self._job.zero_shot is not None)
        try:
            yield from self._extract_all(videos, saving)
        except RunStopped:
            yield from saving.flush()  # what was finished is kept
            raise

    def _extract_all(self, videos: Sequence[str], saving: Saving) -> Iterator[VideoResult]:
        alone = self._attempts.again  # one may be a killer: none shares another's fate
        for position, video in enumerate(videos):
            deaths = self._attempts.begin(position, video)
            if deaths:
                yield from saving.flush()  # it may end this process, too
            before = self._from_before(video, deaths, saving) if alone else None
            if before is not None:
                yield from saving.take(Made(position, before))
                continue
            opened = self._decode(video, position, len(deaths) + 1)
            self._open.append(opened)
            yield from self._finish(saving, everything=alone or _is_refused(opened.error))
        yield from self._finish(saving, everything=True)
        yield from saving.flush()

    def _from_before(
        self, video: str, deaths: Sequence[Death], saving: Saving
    ) -> VideoResult | None:
        """What an earlier process of this group, which died, leaves to report."""
        frames = saving.saved_before(video)
        if frames is not None:
            return VideoResult(video, frames)
        error = why_to_give_up(deaths, self._job.max_attempts)
        if error is None:
            return None
        return VideoResult(video, 0, Failure.of(video, error, len(deaths)))

    def _decode(self, video: str, position: int, attempt: int) -> OpenVideo:
        """Decode a video and send its frames, from the beginning again where its source broke off.

        What can be asked for again without decoding again, :mod:`rayclip.io.remote` has asked for.
        """
        dtype = self._job.feature_dtype
        opened = OpenVideo(video, position, attempt, dtype)

        def decode(by_packets: bool = True) -> None:
            nonlocal opened
            # frames on their way belong to the other
            opened = OpenVideo(video, position, attempt, dtype)
            try:
                with self._watching(video):
                    self._extract(opened, by_packets=by_packets)
            except Miscounted:
                decode(by_packets=False)

        try:
            persistently(decode, _broke_off, patience.ANEW)
        except GaveUp as error:
            opened.fail(VideoError("read", "read_failed", str(error)))
        except VideoError as error:
            opened.fail(error)
        except Irregular as error:
            opened.fail(VideoError("decode", "not_divisible", str(error)))
        except RunStopped:
            raise
        except Exception as error:  # a bug of ours must not take the other videos along
            logger.exception("decoding %s", video)
            bug = f"{type(error).__name__}: {error}"
            opened.fail(VideoError("decode", "internal_error", bug))
        return opened

    def _extract(self, opened: OpenVideo, divide: bool = True, by_packets: bool = True) -> None:
        with self._wanted_frames(opened.video, by_packets) as wanted:
            opened.fps = wanted.fps
            if not (divide and self._segments and self._segments.is_long(wanted.duration_s)):
                self._send_all(opened, wanted.frames)
                return
        if not self._taken_in_segments(opened, self._segments):
            self._extract(opened, divide=False)

    def _taken_in_segments(self, opened: OpenVideo, segments: Segments) -> bool:
        """Have others decode a long video, segment by segment; whether they could."""
        blocks = segments.extract(opened.video)
        if blocks is None:
            return False
        frames = 0
        try:
            for timestamps_ms, features in blocks:
                opened.take(timestamps_ms, features)
                frames += len(timestamps_ms)
        except SegmentFailed as error:  # whatever it was, decoding it undivided decides
            logger.warning("%s is decoded undivided: %s", opened.video, error)
            opened.forget()
            return False
        return frames > 0  # else nothing is shown: then the whole video gives its first frame

    def _send_all(self, opened: OpenVideo, frames: Iterator[ShownFrame]) -> None:
        squares: list[NDArray[np.uint8]] = []
        timestamps_ms: list[tuple[float, ...]] = []
        for shown in frames:
            squares.append(self._resize_crop(upright_rgb(shown.frame), self._job.n_px))
            timestamps_ms.append(shown.timestamps_ms)
            if len(squares) == CHUNK_FRAMES:
                self._send(opened, squares, timestamps_ms)
                squares, timestamps_ms = [], []
                if opened.error is not None:
                    return  # its encoder refused it
        if squares:
            self._send(opened, squares, timestamps_ms)

    @contextmanager
    def _wanted_frames(self, video: str, by_packets: bool) -> Iterator[WantedFrames]:
        """The frames to encode, from the video itself or from a re-encoded copy."""
        job = self._job
        place = self._source_of(video)
        if job.reencoded is None or job.choice.extraction_fps is None:
            with open_shown(
                place, job.choice, job.storage_options, job.segment, by_packets
            ) as wanted:
                yield wanted
            return
        copy = f"{job.reencoded}/{output_name(video, job.naming)}_new_fps.mp4"
        try:
            reencode(place, copy, job.choice.extraction_fps, job.storage_options)
        except OSError as error:
            sentence = why_to_stop(error, job.reencoded)
            if sentence is not None:
                raise RunStopped(sentence) from error
            raise VideoError("write", "write_failed", f"writing {copy} failed: {error}") from error
        with (
            open_video(place, job.storage_options) as original,
            open_shown(copy, FrameChoice()) as wanted,
        ):
            yield wanted._replace(fps=original.fps)

    def _send(
        self,
        opened: OpenVideo,
        squares: list[NDArray[np.uint8]],
        timestamps_ms: list[tuple[float, ...]],
    ) -> None:
        while self._frames_in_flight + len(squares) > WINDOW_FRAMES and self._in_flight:
            self._make_room()
        pending = self._encoders.submit(np.stack(squares))
        self._in_flight[pending] = opened.send(pending, timestamps_ms)
        self._frames_in_flight += len(squares)

    def _make_room(self) -> None:
        """Wait for any chunk, not for the oldest: an encoder that is behind, or does not answer,
        must not keep frames from the others."""
        for pending in self._encoders.wait(list(self._in_flight)):
            chunk = self._in_flight.pop(pending)
            self._frames_in_flight -= len(chunk.repeats)
            chunk.opened.settle()

    def _finish(self, saving: Saving, everything: bool) -> Iterator[VideoResult]:
        """Finish the open videos in order: those that are ready, or everything."""
        while self._open and (everything or self._open[0].is_ready()):
            yield from saving.take(self._made(self._open.popleft(), saving))

    def _made(self, opened: OpenVideo, saving: Saving) -> Made:
        """Wait for what becomes of a video."""
        try:
            extraction = opened.extraction()
            saving.refuse_too_large(extraction)
            predictions = None
            if self._job.folder is not None and self._job.zero_shot is not None:
                frames = self._job.zero_shot.top(extraction.clip)
                predictions = predictions_csv(extraction.timestamps_ms, frames)
            result = VideoResult(opened.video, len(extraction.clip), extraction=extraction)
            return Made(opened.position, result, opened.attempt, predictions)
        except VideoError as error:
            if _is_refused(error):
                sentence = why_to_stop(error, opened.video)
                raise RunStopped(str(sentence)) from error
            failure = Failure.of(opened.video, error, opened.attempt)
        except RunStopped:
            raise
        except Exception as error:  # a bug of ours must not take the other videos along
            logger.exception("finishing %s", opened.video)
            bug = VideoError("write", "internal_error", f"{type(error).__name__}: {error}")
            failure = Failure.of(opened.video, bug, opened.attempt)
        return Made(opened.position, VideoResult(opened.video, 0, failure), opened.attempt)


def _broke_off(error: Exception) -> bool:
    """Whether a source broke off where it cannot be asked for the rest."""
    return isinstance(error, VideoError) and error.stage == "read" and passes(error)


def _is_refused(error: VideoError | None) -> bool:
    """Whether no other video of this storage could be read either."""
    return isinstance(error, CredentialsRefused)
