"""The per-video step: decode, send frames to an encoder, collect the features, commit.

The same code runs in a Ray task and, without Ray, on a thread of the worker process. It never
imports torch or Ray.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import BinaryIO

from rayclip.actors.commit_buffer import CommitBuffer, Extracted
from rayclip.actors.flow_control import CHUNK_BYTES, counted_bytes, frames_per_chunk
from rayclip.actors.job import (
    Attempts,
    Encoders,
    ExtractionJob,
    SegmentFailed,
    Segments,
    TaskVideo,
)
from rayclip.actors.messages import Frame
from rayclip.actors.outcomes import earlier_results, extracted, is_refused
from rayclip.actors.pending_video import Pending, PendingChunk, PendingVideo
from rayclip.errors import Code, RunStopped, VideoError
from rayclip.io import retry
from rayclip.io.retry import RetriesExhausted, with_retry
from rayclip.io.storage_errors import is_transient, stop_reason
from rayclip.media.decoding import SelectedFrame
from rayclip.media.fragments import parse_part
from rayclip.media.frames import FrameSelection, open_selected
from rayclip.media.gop import Irregular
from rayclip.media.image_folder import ImageFolder
from rayclip.media.reencode import reencode
from rayclip.media.video import MisleadingPackets, open_video
from rayclip.output.safe_names import output_name
from rayclip.report.results import VideoResult

WINDOW_BYTES = 8 * CHUNK_BYTES  # 77 MB of frames

logger = logging.getLogger(__name__)


class VideoExtractor:
    """Turns videos into results. Decodes ahead while the encoders work on earlier videos.

    Frames in flight are limited.
    """

    def __init__(
        self,
        job: ExtractionJob,
        encoders: Encoders,
        attempts: Attempts,
        segments: Segments | None = None,
        watching: Callable[[str], AbstractContextManager[object]] = nullcontext,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        """Prepare to extract.

        Args:
            job: what to do with each video.
            encoders: encode the frames.
            attempts: counts the attempts.
            segments: extracts long videos in parallel; None never divides them.
            watching: entered for each video while it is decoded; ends a process that hangs.
            window_bytes: how many bytes of frames may be in flight.
        """
        self._job = job
        self._segments = segments
        self._watching = watching
        self._window_bytes = window_bytes
        self._encoders = encoders
        self._attempts = attempts
        self._pending: deque[tuple[PendingVideo, Mapping[int, VideoResult]]] = deque()
        self._in_flight: dict[Pending, tuple[PendingChunk, int]] = {}
        self._bytes_in_flight = 0

    def run(self, task: Sequence[str], videos: Iterable[TaskVideo]) -> Iterator[VideoResult]:
        """Extract the videos of a task, and yield one result for each and each of its models, in
        order, as soon as it is saved. A bad video is a result, not an exception.

        Args:
            task: the inputs of the task, by which its retry finds what this attempt saved.
            videos: its videos; each is decoded before the next is asked for.

        Raises:
            RunStopped: no encoder remains, or nothing can be saved.
        """
        writers = [folder.writer(task) for folder in self._job.folders]
        buffer = CommitBuffer(writers, self._attempts, self._job.zero_shot is not None)
        try:
            yield from self._extract_all(videos, buffer)
        except RunStopped:
            yield from buffer.flush()  # keep what is finished
            raise

    def _extract_all(
        self, videos: Iterable[TaskVideo], buffer: CommitBuffer
    ) -> Iterator[VideoResult]:
        for video in videos:
            deaths = self._attempts.begin(video.position, video.video)
            if deaths:  # it may end this process as well, which must not affect others
                yield from self._finish(buffer, wait=True)
                yield from buffer.flush()
            earlier = {}
            if self._attempts.is_retry:
                earlier = earlier_results(self._job, buffer, video, deaths)
            remaining = [model for model in video.models if model not in earlier]
            if not remaining:
                yield from self._finish(buffer, wait=True)
                yield from buffer.take(Extracted(video.position, earlier))
                continue
            pending = self._decode(video, len(deaths) + 1, remaining)
            self._pending.append((pending, earlier))
            yield from self._finish(buffer, wait=bool(deaths) or is_refused(pending.error))
        yield from self._finish(buffer, wait=True)
        yield from buffer.flush()

    def _decode(self, video: TaskVideo, attempt: int, models: Sequence[int]) -> PendingVideo:
        """Decode a video and send its frames; restart from the beginning if its source breaks off.

        :mod:`rayclip.io.remote` has already retried what can be read again without decoding again.
        """
        dtype = self._job.feature_dtype
        pending = PendingVideo(video.video, video.position, attempt, models, dtype, video.columns)

        def decode() -> None:
            nonlocal pending
            if video.error is not None:
                raise video.error
            for by_decoding in (False, True):
                # frames in flight belong to the previous one
                pending = pending.restarted()
                with suppress(MisleadingPackets), self._watching(video.video):
                    divide = video.content is None and not by_decoding
                    self._extract(pending, video.content, divide, by_decoding)
                    return

        try:
            with_retry(decode, is_interrupted, retry.RESTART)
        except RetriesExhausted as error:
            pending.fail(VideoError("read", Code.READ_FAILED, str(error)))
        except VideoError as error:
            pending.fail(error)
        except Irregular as error:
            pending.fail(VideoError("decode", Code.NOT_DIVISIBLE, str(error)))
        except RunStopped:
            raise
        except Exception as error:  # a bug of ours must not fail the other videos
            logger.exception("decoding %s", video.video)
            bug = f"{type(error).__name__}: {error}"
            pending.fail(VideoError("decode", Code.INTERNAL_ERROR, bug))
        return pending

    def _extract(
        self,
        pending: PendingVideo,
        content: BinaryIO | None,
        divide: bool,
        by_decoding: bool = False,
    ) -> None:
        with self._wanted_frames(pending.video, content, by_decoding) as wanted:
            pending.fps = wanted.fps
            if not (divide and self._segments and self._segments.is_long(wanted.duration_s)):
                self._send_all(pending, wanted.frames)
                return
        if not self._extract_segments(pending, self._segments):
            self._extract(pending, content, divide=False)

    def _extract_segments(self, pending: PendingVideo, segments: Segments) -> bool:
        """Have other tasks extract a long video segment by segment, and return whether that
        worked."""
        blocks = segments.extract(pending.video, pending.numbers)
        if blocks is None:
            return False
        frames = 0
        try:
            for timestamps_ms, features in blocks:
                pending.take(timestamps_ms, features)
                frames += len(timestamps_ms)
        except SegmentFailed as error:  # whatever it was, decoding the whole video decides
            logger.warning("%s is decoded without dividing it: %s", pending.video, error)
            pending.reset()
            return False
        return frames > 0  # otherwise nothing was selected: the whole video gives its first frame

    def _send_all(self, video: PendingVideo, selected_frames: Iterator[SelectedFrame]) -> None:
        squares = self._job.squares(video.numbers)
        chunk_frames = frames_per_chunk(squares.nbytes)
        frames: list[Frame] = []
        timestamps_ms: list[tuple[float, ...]] = []
        for selected in selected_frames:
            frames.append(squares.of(selected.rgb()))
            timestamps_ms.append(selected.timestamps_ms)
            if len(frames) == chunk_frames:
                self._send(video, frames, timestamps_ms)
                frames, timestamps_ms = [], []
                if video.error is not None:
                    return  # the encoder failed
        if frames:
            self._send(video, frames, timestamps_ms)

    @contextmanager
    def _wanted_frames(
        self, video: str, content: BinaryIO | None, by_decoding: bool
    ) -> Iterator[FrameSelection]:
        """Open the frames to encode, in the video itself or in a re-encoded copy."""
        job = self._job
        source = job.source(video) if content is None else content
        choice = job.choice_for(video)
        if job.reencoded is None or choice.fps is None or isinstance(source, ImageFolder):
            with open_selected(
                source, choice, job.storage_options, job.segment, by_decoding
            ) as wanted:
                yield wanted
            return
        copy = f"{job.reencoded}/{output_name(parse_part(video).path, job.naming)}_new_fps.mp4"
        try:
            reencode(source, copy, choice.fps, job.storage_options)
        except OSError as error:
            sentence = stop_reason(error, job.reencoded)
            if sentence is not None:
                raise RunStopped(sentence) from error
            raise VideoError(
                "write", Code.WRITE_FAILED, f"writing {copy} failed: {error}"
            ) from error
        with (
            open_video(source, job.storage_options) as original,
            open_selected(copy, replace(choice, fps=None), by_decoding=by_decoding) as wanted,
        ):
            yield wanted._replace(fps=original.fps)

    def _send(
        self, video: PendingVideo, frames: list[Frame], timestamps_ms: list[tuple[float, ...]]
    ) -> None:
        size = counted_bytes(frames)
        while self._bytes_in_flight + size > self._window_bytes and self._in_flight:
            self._make_room()
        pending = self._encoders.submit(frames, video.numbers)
        self._in_flight[pending] = video.send(pending, timestamps_ms), size
        self._bytes_in_flight += size

    def _make_room(self) -> None:
        """Wait for any chunk, not for the oldest: a slow or silent encoder must not starve the
        others."""
        for pending in self._encoders.wait(list(self._in_flight)):
            chunk, size = self._in_flight.pop(pending)
            self._bytes_in_flight -= size
            chunk.video.collect()

    def _finish(self, buffer: CommitBuffer, wait: bool) -> Iterator[VideoResult]:
        """Finish the pending videos in order: those that are ready, or all of them if ``wait``."""
        while self._pending and (wait or self._pending[0][0].is_ready()):
            yield from buffer.take(extracted(self._job, *self._pending.popleft()))


def is_interrupted(error: Exception) -> bool:
    """Whether a source broke off that cannot resume from that position."""
    return isinstance(error, VideoError) and error.stage == "read" and is_transient(error)
