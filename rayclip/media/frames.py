"""The frames of a video that somebody asked for, from wherever it is."""

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
from rayclip.media.video import Miscounted, can_be_read_again, open_video


class WantedFrames(NamedTuple):
    """A video that was opened for those of its frames that are wanted.

    Attributes:
        fps: its own average frame rate.
        duration_s: its length as its container tells it; 0 where that does not.
        frames: each wanted frame once; nothing is decoded before they are asked for.
    """

    fps: float
    duration_s: float
    frames: Iterator[SelectedFrame]


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
    choice = FrameChoice(fps, extraction_total)
    by_packets = extraction_total is None or _can_be_counted_by_packets(source, choice)
    with open_selected(source, choice, by_packets=by_packets) as video:
        for shown in video.frames:
            rgb = shown.rgb()
            for timestamp_ms in shown.timestamps_ms:
                yield timestamp_ms, rgb


@contextmanager
def open_selected(
    source: VideoSource,
    choice: FrameChoice,
    storage_options: Mapping[str, Any] | None = None,
    segment: Segment = WHOLE,
    by_packets: bool = True,
) -> Iterator[WantedFrames]:
    """Open a video for the frames of it that are wanted.

    With ``extraction_total`` the video is read twice, first to count its frames; a file object
    must then be able to go back to its beginning.

    Args:
        source: a local path, an fsspec URL or a binary file object.
        choice: which frames are wanted.
        storage_options: given to fsspec for URLs.
        segment: what to give of the video.
        by_packets: whether ``extraction_total`` may count packets, which is cheap. Where these turn
            out not to be frames, giving these raises Miscounted: then begin again without.

    Raises:
        BadVideo, VideoError: as :func:`open_video`.
    """
    numbers = None
    if choice.extraction_total is not None:
        frames, by_packets = _number_of_frames(source, storage_options, by_packets)
        numbers = evenly_spaced(frames, choice.extraction_total)
    with open_video(source, storage_options) as video:
        chosen = None if numbers is None else frozenset(numbers)
        shown = video.selected_frames(choice.extraction_fps, chosen, segment, by_packets)
        yield WantedFrames(video.fps, video.duration_s, shown)


def cut(
    source: VideoSource,
    segment_s: float,
    most: int,
    storage_options: Mapping[str, Any] | None = None,
) -> list[Segment]:
    """The segments into which a video can be divided.

    Raises:
        BadVideo, VideoError: as :func:`open_video`.
    """
    with open_video(source, storage_options) as video:
        return video.segments(segment_s, most)


def _can_be_counted_by_packets(source: VideoSource, choice: FrameChoice) -> bool:
    """Whether the frames that counting packets chooses can all be decoded."""
    try:
        with open_selected(source, choice) as video:
            for _ in video.frames:
                pass
        return True
    except Miscounted:
        return False


def _number_of_frames(
    source: VideoSource, storage_options: Mapping[str, Any] | None, by_packets: bool
) -> tuple[int, bool]:
    """How many frames a video has, and whether that was told from packets alone."""
    if not can_be_read_again(source):
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
