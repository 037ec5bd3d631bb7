"""Open a video for selected frames. Other packages get frames only through this module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rayclip.errors import Code, VideoError
from rayclip.media.decoding import SelectedFrame
from rayclip.media.gop import Irregular
from rayclip.media.sampling import FrameChoice, evenly_spaced, parse_fps
from rayclip.media.segments import WHOLE, Segment
from rayclip.media.source import VideoSource
from rayclip.media.video import Miscounted, can_read_twice, open_video


class FrameSelection(NamedTuple):
    """An open video and the frames selected from it.

    Attributes:
        fps: the video's own average frame rate.
        duration_s: from the container, in seconds; 0 if unknown.
        frames: each selected frame once, decoded lazily.
    """

    fps: float
    duration_s: float
    frames: Iterator[SelectedFrame]


def iter_frames(
    source: VideoSource,
    extraction_fps: str | int | float | Fraction | None = None,
    extraction_total: int | None = None,
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Iterate over the frames that rayclip encodes, before they are resized.

    Args:
        source: a local path, an fsspec URL or a binary file object; read once, forward.
        extraction_fps: frames per second, e.g. ``5``, ``2.5`` or ``"30000/1001"``; None yields
            every frame. A frame that is shown at several ticks is yielded for each.
        extraction_total: this many frames of the whole video, evenly spaced, each at its own
            time; all frames if there are fewer. The video is then decoded twice.

    Yields:
        ``(timestamp_ms, rgb)``: ms from the container's start, and uint8 ``[height, width, 3]``,
        upright and in full size.

    Raises:
        BadVideo: the video cannot be opened or decoded.
        VideoError: the source could not be read (stage ``read``).
        ValueError: ``extraction_fps`` is not a frame rate, ``extraction_total`` is below 1, or
            both are given.
    """
    if extraction_fps is not None and extraction_total is not None:
        raise ValueError("extraction_fps and extraction_total exclude each other")
    if extraction_total is not None and extraction_total < 1:
        raise ValueError(f"extraction_total must be at least 1, not {extraction_total}")
    fps = None if extraction_fps is None else parse_fps(extraction_fps)
    choice = FrameChoice(fps, extraction_total)
    by_packets = extraction_total is None or _each_packet_is_a_frame(source, choice)
    with open_selected(source, choice, by_packets=by_packets) as video:
        for selected in video.frames:
            rgb = np.ascontiguousarray(selected.rgb())
            for timestamp_ms in selected.timestamps_ms:
                yield timestamp_ms, rgb


@contextmanager
def open_selected(
    source: VideoSource,
    choice: FrameChoice,
    storage_options: Mapping[str, Any] | None = None,
    segment: Segment = WHOLE,
    by_packets: bool = True,
) -> Iterator[FrameSelection]:
    """Open a video for the selected frames.

    With ``extraction_total`` the video is read twice, first to count its frames. A file object
    must then be seekable.

    Args:
        source: a local path, an fsspec URL or a binary file object.
        choice: which frames to select.
        storage_options: passed to fsspec for URLs.
        segment: the part of the video to select from.
        by_packets: whether ``extraction_total`` may count packets, which is cheap. If packets turn
            out not to be frames, iterating raises Miscounted: then retry with False.

    Raises:
        BadVideo, VideoError: see :func:`open_video`.
    """
    numbers = None
    if choice.extraction_total is not None:
        count, by_packets = _count_frames(source, storage_options, by_packets)
        numbers = evenly_spaced(count, choice.extraction_total)
    with open_video(source, storage_options) as video:
        chosen = None if numbers is None else frozenset(numbers)
        frames = video.selected_frames(choice.extraction_fps, chosen, segment, by_packets)
        yield FrameSelection(video.fps, video.duration_s, frames)


def divide(
    source: VideoSource,
    segment_s: float,
    max_segments: int,
    storage_options: Mapping[str, Any] | None = None,
) -> list[Segment]:
    """Divide a video into segments that can be decoded independently.

    Args:
        source: a local path, an fsspec URL or a binary file object.
        segment_s: minimum duration of a segment in seconds.
        max_segments: maximum number of segments.
        storage_options: passed to fsspec for URLs.

    Raises:
        BadVideo, VideoError: see :func:`open_video`.
    """
    with open_video(source, storage_options) as video:
        return video.segments(segment_s, max_segments)


def _each_packet_is_a_frame(source: VideoSource, choice: FrameChoice) -> bool:
    """Whether counting packets selects frames that can all be decoded."""
    try:
        with open_selected(source, choice) as video:
            for _ in video.frames:
                pass
        return True
    except Miscounted:
        return False


def _count_frames(
    source: VideoSource, storage_options: Mapping[str, Any] | None, by_packets: bool
) -> tuple[int, bool]:
    """Count the frames of a video, and report whether packets alone were counted."""
    if not can_read_twice(source):
        raise VideoError(
            "read",
            Code.NOT_SEEKABLE,
            "extraction_total reads a video twice, and this one cannot seek",
        )
    if by_packets:
        try:
            with open_video(source, storage_options) as video:
                return video.count_pictures(), True
        except Irregular:
            pass
    with open_video(source, storage_options) as video:
        return video.count_frames(), False
