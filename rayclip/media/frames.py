"""Open a video for selected frames. Other packages get frames only through this module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rayclip.errors import BadVideo, Code, VideoError
from rayclip.io.remote import BLOCK_BYTES, SMALL_BLOCK_BYTES
from rayclip.media.decoding import SelectedFrame
from rayclip.media.frame_choice import FrameChoice, parse_fps, parse_seconds
from rayclip.media.gop import Irregular
from rayclip.media.image_folder import ImageFolder, ImageSequence
from rayclip.media.segments import WHOLE, Segment
from rayclip.media.source import VideoSource, can_read_twice
from rayclip.media.video import MisleadingPackets, open_video


class FrameSelection(NamedTuple):
    """An open video and the frames selected from it.

    Attributes:
        fps: the video's own average frame rate.
        duration_s: of the range to select from, in seconds; 0 if unknown.
        frames: each selected frame once, decoded lazily.
    """

    fps: float
    duration_s: float
    frames: Iterator[SelectedFrame]


def iter_frames(
    source: VideoSource,
    extraction_fps: str | int | float | Fraction | None = None,
    extraction_total: int | None = None,
    *,
    every: int | None = None,
    keyframes: bool = False,
    start: str | int | float | None = None,
    end: str | int | float | None = None,
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Iterate over the frames that rayclip encodes, before they are resized.

    At most one of the first four options selects frames; without any, all are yielded.

    Args:
        source: a local path, an fsspec URL or a binary file object; read once, forward, if no
            option says otherwise.
        extraction_fps: frames per second, e.g. ``5``, ``2.5`` or ``"30000/1001"``. A frame that is
            shown at several ticks is yielded for each.
        extraction_total: this many frames, evenly spaced, each at its own time; all frames if
            there are fewer. The video is then read three times.
        every: each frame of this many, starting with the first, at its own time. The video is then
            read twice if it can seek; otherwise everything is decoded.
        keyframes: only frames at which decoding can start, each at its own time.
        start: seconds from the container's start, from which frames are selected. mp4, mov,
            Matroska and WebM are then read from there.
        end: seconds from the container's start, before which frames are selected.

    Yields:
        ``(timestamp_ms, rgb)``: ms from the container's start, and uint8 ``[height, width, 3]``,
        upright and in full size.

    Raises:
        BadVideo: the video cannot be opened or decoded, or has no frame from ``start`` to ``end``.
        VideoError: the source could not be read (stage ``read``).
        ValueError: an option has an invalid value, or several of the first four are given.
    """
    choice = FrameChoice(
        fps=None if extraction_fps is None else parse_fps(extraction_fps),
        total=extraction_total,
        every=every,
        keyframes=keyframes,
        start=None if start is None else parse_seconds(start),
        end=None if end is None else parse_seconds(end),
    )
    given = (extraction_fps, extraction_total, every, keyframes or None)
    if sum(value is not None for value in given) > 1:
        raise ValueError("extraction_fps, extraction_total, every and keyframes exclude each other")
    for name, value in (("extraction_total", extraction_total), ("every", every)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    by_decoding = False
    if not can_read_twice(source):
        by_decoding = choice.fps is None
    elif choice.is_numbered:
        by_decoding = not _each_packet_is_a_frame(source, choice)
    yielded = 0
    try:
        for frame in _pairs(source, choice, by_decoding):
            yield frame
            yielded += 1
    except MisleadingPackets:  # but not the frames so far, unless they were counted
        yield from islice(_pairs(source, choice, by_decoding=True), yielded, None)


@contextmanager
def open_selected(
    source: VideoSource | ImageFolder,
    choice: FrameChoice,
    storage_options: Mapping[str, Any] | None = None,
    segment: Segment = WHOLE,
    by_decoding: bool = False,
) -> Iterator[FrameSelection]:
    """Open a video for the selected frames.

    With ``total`` the video is read twice, first to count its frames. A file object must then be
    seekable.

    Args:
        source: a local path, an fsspec URL, a binary file object or a folder of images.
        choice: which frames to select.
        storage_options: passed to fsspec for URLs.
        segment: the part of the video to select from.
        by_decoding: whether to decode everything from the beginning, without trust in packets and
            index. Iterating raises :class:`MisleadingPackets` if that is needed: then discard the
            frames, and open again with this.

    Raises:
        BadVideo, VideoError: see :func:`open_video`.
        BadVideo: the range ends before it begins.
    """
    if choice.is_reversed:
        raise BadVideo(
            "open",
            Code.EMPTY_RANGE,
            f"its range, {choice.range_words()}, ends before it begins",
        )
    if isinstance(source, ImageFolder):
        images = ImageSequence(source, storage_options or {})
        begin_s, end_s = choice.span_s(images.duration_s)
        yield FrameSelection(images.fps, end_s - begin_s, images.selected_frames(choice, segment))
        return
    count = None
    if choice.total is not None:
        count, by_decoding = _count_frames(source, choice, storage_options, by_decoding)
    with open_video(source, storage_options, _block_bytes(choice)) as video:
        begin_s, end_s = choice.span_s(video.duration_s)
        frames = video.selected_frames(choice, segment, count, by_decoding)
        yield FrameSelection(video.fps, end_s - begin_s, frames)


def divide(
    source: VideoSource | ImageFolder,
    choice: FrameChoice,
    segment_s: float,
    max_segments: int,
    storage_options: Mapping[str, Any] | None = None,
) -> list[Segment]:
    """Divide the range of a choice into segments that can be decoded independently.

    Args:
        source: a local path, an fsspec URL, a binary file object or a folder of images.
        choice: which frames are wanted.
        segment_s: minimum duration of a segment in seconds.
        max_segments: maximum number of segments.
        storage_options: passed to fsspec for URLs.

    Raises:
        BadVideo, VideoError: see :func:`open_video`.
    """
    if isinstance(source, ImageFolder):
        images = ImageSequence(source, storage_options or {})
        return images.segments(choice, segment_s, max_segments)
    with open_video(source, storage_options) as video:
        return video.segments(choice, segment_s, max_segments)


def _pairs(
    source: VideoSource, choice: FrameChoice, by_decoding: bool
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    with open_selected(source, choice, by_decoding=by_decoding) as video:
        for selected in video.frames:
            rgb = np.ascontiguousarray(selected.rgb())
            for timestamp_ms in selected.timestamps_ms:
                yield timestamp_ms, rgb


def _block_bytes(choice: FrameChoice) -> int:
    """How much of a remote video to request at a time."""
    return BLOCK_BYTES if choice.start is None else SMALL_BLOCK_BYTES


def _each_packet_is_a_frame(source: VideoSource, choice: FrameChoice) -> bool:
    """Whether counting packets selects frames that can all be decoded."""
    try:
        with open_selected(source, choice) as video:
            for _ in video.frames:
                pass
        return True
    except MisleadingPackets:
        return False


def _count_frames(
    source: VideoSource,
    choice: FrameChoice,
    storage_options: Mapping[str, Any] | None,
    by_decoding: bool,
) -> tuple[int, bool]:
    """Count the frames of a range, and report whether they were decoded for that."""
    if not can_read_twice(source):
        raise VideoError(
            "read",
            Code.NOT_SEEKABLE,
            "extraction_total reads a video twice, and this one cannot seek",
        )
    if not by_decoding:
        try:
            with open_video(source, storage_options, _block_bytes(choice)) as video:
                return video.count_pictures(choice), False
        except Irregular:
            pass
    with open_video(source, storage_options) as video:
        return video.count_frames(choice), True
