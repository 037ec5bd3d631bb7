"""Open a video, decode it once and forward, and hand out the frames that are asked for, upright.

Knows neither Ray nor torch, so that decoding processes stay small.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Container, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO

import av
import fsspec
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from rayclip.errors import BadVideo, VideoError
from rayclip.orientation import upright_rgb
from rayclip.sampling import (
    MICROSECONDS,
    FrameChoice,
    TickGrid,
    evenly_spaced,
    parse_fps,
    shown_ticks,
)
from rayclip.timestamps import BestEffortTimestamp

MAX_PIXELS = 8192 * 8192
MAX_FRUITLESS_ERRORS = 1000  # decode errors before the first frame: then it is no video
ATTACHED_PICTURE = 0x400  # libavformat's AV_DISPOSITION_ATTACHED_PIC
DEFAULT_BONUS = 5_000_000  # what ffmpeg's choice of stream adds for AV_DISPOSITION_DEFAULT
NETWORK_TIMEOUT_S = 30.0

VideoSource = str | os.PathLike[str] | BinaryIO
"""A local path, an fsspec URL, or a binary file object that is read forward."""


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame with its best-effort timestamp, in the stream's time base."""

    pts: int
    duration: int
    frame: av.VideoFrame


@dataclass(frozen=True)
class ShownFrame:
    """A source frame and every time at which the output shows it.

    Attributes:
        frame: the decoded frame; ``upright_rgb`` gives its pixels.
        timestamps_ms: one entry per output frame (two or more where the frame is repeated).
    """

    frame: av.VideoFrame
    timestamps_ms: tuple[float, ...]


class Video:
    """An open video; make one with :func:`open_video`, and read it once."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._container = container
        self._stream = stream
        rate = stream.average_rate or stream.guessed_rate
        self.fps = float(rate) if rate else math.nan

    def count_frames(self) -> int:
        """Decode everything, only to count: packets may hold no frame, or more than one.

        Raises:
            BadVideo: nothing could be decoded (stage ``decode``).
        """
        return sum(1 for _ in self._decoded())

    def shown_frames(
        self, extraction_fps: Fraction | None = None, numbers: Container[int] | None = None
    ) -> Iterator[ShownFrame]:
        """Decode forward and give each frame that the output shows, once.

        Args:
            extraction_fps: output frames per second; None gives every frame at its own time.
            numbers: without extraction_fps: only the frames of these numbers, from 0.

        Raises:
            BadVideo: nothing could be decoded (stage ``decode``).
        """
        time_base = self._stream.time_base
        if time_base is None:
            raise BadVideo("decode", "no_time_base", "the video stream has no time base")
        start_us = self._container.start_time or 0
        frames = self._timed_frames(time_base)
        if extraction_fps is None:
            start = Fraction(start_us, MICROSECONDS)
            for number, timed in enumerate(frames):
                if numbers is not None and number not in numbers:
                    continue
                milliseconds = float((timed.pts * time_base - start) * 1000)
                yield ShownFrame(timed.frame, (milliseconds,))
            return
        grid = TickGrid(time_base, extraction_fps, start_us)
        for timed, ticks in shown_ticks(frames, grid):
            yield ShownFrame(timed.frame, tuple(grid.milliseconds(tick) for tick in ticks))

    def _timed_frames(self, time_base: Fraction) -> Iterator[TimedFrame]:
        guess = BestEffortTimestamp()
        rate = self._stream.guessed_rate or self._stream.average_rate or Fraction(25)
        frame_duration = max(1, round(1 / rate / time_base))
        following = 0
        for frame in self._decoded():
            pts = guess.of(frame.pts, frame.dts)
            if pts is None:  # raw streams carry no times: count on at the guessed rate
                pts = following
            duration = frame.duration or 0
            following = pts + (duration or frame_duration)
            yield TimedFrame(pts, duration, frame)

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Every frame that decodes; damaged packets are passed over, as ffmpeg does."""
        codec = self._stream.codec_context
        packets = self._container.demux(self._stream)
        decoded = errors = 0
        draining = False
        while not draining:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                packet = None
            except Exception as error:  # of the file object: each storage has its own
                raise VideoError("read", "read_failed", f"reading failed: {error}") from error
            draining = packet is None or (packet.dts is None and not packet.size)
            if packet is not None and not packet.size and not draining:
                continue  # given to the decoder, an empty packet would mean the end
            try:
                for frame in codec.decode(None if draining else packet):
                    decoded += 1
                    yield frame
            except av.FFmpegError as error:
                errors += 1
                if errors > MAX_FRUITLESS_ERRORS and not decoded:
                    raise BadVideo("decode", "undecodable", f"no packet decodes: {error}") from None
        if not decoded:
            raise BadVideo(
                "decode", "no_frames", f"no frame could be decoded ({errors} damaged packets)"
            )


@contextmanager
def open_video(
    source: VideoSource, storage_options: Mapping[str, Any] | None = None
) -> Iterator[Video]:
    """Open a video for one read, forward; it is closed at the end of the ``with`` block.

    Args:
        source: a local path, an fsspec URL or a binary file object.
        storage_options: given to fsspec for URLs.

    Raises:
        BadVideo: it is no video that can be decoded (stage ``open``).
        VideoError: it could not be read (stage ``read``): not the video's fault.
    """
    with ExitStack() as stack:
        file = _readable(source, storage_options or {}, stack)
        try:
            container = av.open(
                file,
                "r",
                metadata_errors="ignore",
                timeout=(NETWORK_TIMEOUT_S, NETWORK_TIMEOUT_S),
            )
        except av.FFmpegError as error:
            raise BadVideo(
                "open", "not_a_video", f"no container that libav knows ({error.strerror})"
            ) from None
        except Exception as error:  # of the file object: each storage has its own
            raise VideoError("read", "read_failed", f"reading failed: {error}") from error
        stack.enter_context(container)
        yield Video(container, _video_stream(container))


@contextmanager
def open_shown(
    source: VideoSource, choice: FrameChoice, storage_options: Mapping[str, Any] | None = None
) -> Iterator[tuple[float, Iterator[ShownFrame]]]:
    """The fps of a video and the frames of it that are wanted.

    With ``extraction_total`` the video is decoded twice, first to count its frames; a file object
    must then be able to go back to its beginning.

    Raises:
        BadVideo, VideoError: as :func:`open_video`.
    """
    numbers = None
    if choice.extraction_total is not None:
        with open_video(source, storage_options) as video:
            numbers = set(evenly_spaced(video.count_frames(), choice.extraction_total))
        if not isinstance(source, str | os.PathLike):
            source.seek(0)
    with open_video(source, storage_options) as video:
        yield video.fps, video.shown_frames(choice.extraction_fps, numbers)


def iter_frames(
    source: VideoSource,
    extraction_fps: str | int | float | Fraction | None = None,
    extraction_total: int | None = None,
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """The frames that rayclip encodes, before they are resized.

    Args:
        source: a local path, an fsspec URL or a binary file object; it is read once, forward.
        extraction_fps: frames per second, e.g. ``5``, ``2.5`` or ``"30000/1001"``; None gives
            every frame. A frame that is shown at several ticks is given at each.
        extraction_total: so many frames of the whole video, evenly spaced, each at its own time;
            all frames where there are no more. The video is then decoded twice.

    Yields:
        ``(timestamp_ms, rgb)``: ms from the container's start, and uint8 ``[height, width, 3]``,
        upright and in full size.

    Raises:
        BadVideo: it cannot be opened or decoded.
        VideoError: it could not be read (stage ``read``).
        ValueError: ``extraction_fps`` is no frame rate, ``extraction_total`` is below 1, or both
            are given.
    """
    if extraction_fps is not None and extraction_total is not None:
        raise ValueError("extraction_fps and extraction_total exclude each other")
    if extraction_total is not None and extraction_total < 1:
        raise ValueError(f"extraction_total must be at least 1, not {extraction_total}")
    fps = None if extraction_fps is None else parse_fps(extraction_fps)
    with open_shown(source, FrameChoice(fps, extraction_total)) as (_, frames):
        for shown in frames:
            rgb = upright_rgb(shown.frame)
            for timestamp_ms in shown.timestamps_ms:
                yield timestamp_ms, rgb


def _readable(
    source: VideoSource, storage_options: Mapping[str, Any], stack: ExitStack
) -> str | BinaryIO:
    """What ``av.open`` takes: a path that exists and is not empty, or a file object."""
    if not isinstance(source, str | os.PathLike):
        return source
    path = os.fspath(source)
    try:
        if "://" in path:
            file: BinaryIO = stack.enter_context(fsspec.open(path, "rb", **storage_options))
            if getattr(file, "size", None) == 0:
                raise BadVideo("open", "empty_file", "the file is empty")
            return file
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise BadVideo("open", "is_a_folder", "this is a folder, not a video")
        if not stat.S_ISREG(status.st_mode):  # a pipe would wait for ever
            raise BadVideo("open", "not_a_file", "this is not a regular file")
        os.close(os.open(path, os.O_RDONLY))
    except FileNotFoundError:
        raise BadVideo("open", "not_found", "there is no such file") from None
    except VideoError:
        raise
    except Exception as error:  # each storage has exceptions of its own
        raise VideoError("read", "read_failed", f"reading failed: {error}") from error
    if status.st_size == 0:
        raise BadVideo("open", "empty_file", "the file is empty")
    return path


def _video_stream(container: InputContainer) -> VideoStream:
    """The stream that ffmpeg would choose, ready for decoding on this thread."""
    streams = [s for s in container.streams.video if not int(s.disposition) & ATTACHED_PICTURE]
    if not streams:
        raise BadVideo("open", "no_video_stream", "the file has no video stream")
    stream = max(
        streams,
        key=lambda s: (
            (s.codec_context.width * s.codec_context.height if s.codec_context else 0)
            + DEFAULT_BONUS * (int(s.disposition) & 1)
        ),
    )
    codec = stream.codec_context
    if codec is None:
        raise BadVideo("open", "no_decoder", "there is no decoder for the video stream")
    if codec.width <= 0 or codec.height <= 0:
        raise BadVideo("open", "no_size", "the video stream does not say its size")
    if codec.width * codec.height > MAX_PIXELS:
        size = f"{codec.width}x{codec.height}"
        raise BadVideo("open", "too_large", f"{size} is more than {MAX_PIXELS} pixels a frame")
    codec.options = {"max_pixels": str(MAX_PIXELS)}  # also where the size changes in mid-stream
    codec.thread_count = 1  # threads cost CPU and save none: videos are decoded side by side
    codec.thread_type = "NONE"
    return stream
