"""Open a video, read it once and forward, and hand out the frames that are asked for.

Knows neither Ray nor torch, so that decoding processes stay small.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain, islice
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from rayclip.container import open_stream, read_packets
from rayclip.decoding import (
    ShownFrame,
    TimedFrame,
    decode_everything,
    shown_frames,
    timed_frames,
)
from rayclip.errors import BadVideo, VideoError
from rayclip.groups import GroupReader, Irregular
from rayclip.keyframes import VideoPacket, is_entry_point
from rayclip.orientation import upright_rgb
from rayclip.planning import PlannedDecoder
from rayclip.sampling import (
    MICROSECONDS,
    EveryFrame,
    FrameChoice,
    FrameRule,
    TickGrid,
    evenly_spaced,
    parse_fps,
)
from rayclip.segments import WHOLE, Segment, inner_borders, segments_between
from rayclip.source import VideoSource
from rayclip.watchdog import LIBAV

MOST_PACKETS_TO_ENTRY = 10_000  # after a seek
HIDDEN_PICTURES = ("vp8",)  # codecs with packets whose picture is not shown


class Video:
    """An open video; make one with :func:`open_video`, and read it once."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        if stream.time_base is None:
            raise BadVideo("open", "no_time_base", "the video stream has no time base")
        self._container = container
        self._stream = stream
        self._codec = stream.codec_context
        self._time_base = stream.time_base
        rate = stream.average_rate or stream.guessed_rate
        self.fps = float(rate) if rate else math.nan

    def count_pictures(self) -> int:
        """Count the pictures from the packets alone, which is cheap.

        Raises:
            Irregular: they do not tell.
        """
        if self._codec.name in HIDDEN_PICTURES:
            raise Irregular("there may be packets whose picture is not shown")
        groups = GroupReader(self._packets(), self._codec)
        return sum(len(group.leading) + len(group.trailing) for group in groups)

    def count_frames(self) -> int:
        """Decode everything, only to count."""
        return sum(1 for _ in decode_everything(self._codec, self._packets()))

    def shown_frames(
        self,
        extraction_fps: Fraction | None = None,
        numbers: Collection[int] | None = None,
        segment: Segment = WHOLE,
    ) -> Iterator[ShownFrame]:
        """Decode what is needed, and give each frame that the output shows, once.

        Args:
            extraction_fps: output frames per second; None gives every frame at its own time.
            numbers: without extraction_fps: only the frames of these numbers, from 0.
            segment: what to give of the video, the numbers aside.

        Raises:
            BadVideo: nothing could be decoded (stage ``decode``).
            VideoError: it could not be read (stage ``read``).
            Irregular: this segment cannot be decoded by itself.
        """
        start_us = self._container.start_time or 0
        rule: FrameRule
        if extraction_fps is not None:
            rule = TickGrid(self._time_base, start_us, extraction_fps)
            frames = self._planned(rule, segment)
        elif numbers is not None:
            rule = EveryFrame(self._time_base, start_us, numbers)
            frames = self._planned(rule, segment)
        else:
            rule = EveryFrame(self._time_base, start_us)
            timed = self._timed(self._packets_of(segment))
            frames = shown_frames(_regular(timed, segment), rule, until=segment.until)
        if segment == WHOLE:
            shown = _at_least_one(frames)
        else:
            shown = (frame for frame in frames if frame.timestamps_ms)
        return shown if numbers is None else islice(shown, len(numbers))

    def segments(self, segment_s: float, most: int) -> list[Segment]:
        """Divide the video at entry points near to equal lengths; one segment where it cannot be.

        Args:
            segment_s: seconds of a segment, at the least.
            most: segments.
        """
        duration_s = (self._container.duration or 0) / MICROSECONDS
        start_s = (self._container.start_time or 0) / MICROSECONDS
        found = []
        for border in inner_borders(duration_s, segment_s, most):
            try:
                self._seek(int((start_s + border) / self._time_base))
            except Irregular:
                return [WHOLE]
            for packet in islice(self._packets(), MOST_PACKETS_TO_ENTRY):
                if packet.pts is not None and is_entry_point(packet, self._codec):
                    found.append(packet.pts)
                    break
        return segments_between(found)

    def _planned(self, rule: FrameRule, segment: Segment) -> Iterator[ShownFrame]:
        groups = GroupReader(self._packets_of(segment), self._codec)
        planned = PlannedDecoder(
            self._codec, groups, rule, since=segment.since, until=segment.until
        )
        try:
            yield from planned.shown_frames()
        except Irregular:
            if segment != WHOLE:
                raise
        else:
            return
        yield from shown_frames(
            self._timed(planned.rest()), rule, number=planned.number, since=planned.resume
        )

    def _timed(self, packets: Iterator[VideoPacket]) -> Iterator[TimedFrame]:
        rate = self._stream.guessed_rate or self._stream.average_rate or Fraction(25)
        return timed_frames(decode_everything(self._codec, packets), self._time_base, rate)

    def _packets_of(self, segment: Segment) -> Iterator[VideoPacket]:
        if segment.since is None:
            return self._packets()
        self._seek(segment.since)
        packets = islice(self._packets(), MOST_PACKETS_TO_ENTRY)
        packet = next((packet for packet in packets if packet.pts == segment.since), None)
        if packet is None or not is_entry_point(packet, self._codec):
            raise Irregular("there is no entry point where the segment should begin")
        return chain([packet], self._packets())

    def _packets(self) -> Iterator[VideoPacket]:
        return read_packets(self._container, self._stream)

    def _seek(self, pts: int) -> None:
        try:
            with LIBAV:
                self._container.seek(pts, stream=self._stream)
        except av.FFmpegError as error:
            raise Irregular("the source cannot seek") from error


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
    with open_stream(source, storage_options or {}) as (container, stream):
        yield Video(container, stream)


@contextmanager
def open_shown(
    source: VideoSource,
    choice: FrameChoice,
    storage_options: Mapping[str, Any] | None = None,
    segment: Segment = WHOLE,
) -> Iterator[tuple[float, Iterator[ShownFrame]]]:
    """The fps of a video and the frames of it that are wanted.

    With ``extraction_total`` the video is read twice, first to count its frames; a file object
    must then be able to go back to its beginning.

    Raises:
        BadVideo, VideoError: as :func:`open_video`.
    """
    numbers = None
    if choice.extraction_total is not None:
        frames = _number_of_frames(source, storage_options)
        numbers = evenly_spaced(frames, choice.extraction_total)
    with open_video(source, storage_options) as video:
        chosen = None if numbers is None else frozenset(numbers)
        yield video.fps, video.shown_frames(choice.extraction_fps, chosen, segment)


def cut(
    source: VideoSource,
    segment_s: float,
    most: int,
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[float, list[Segment]]:
    """The fps of a video, and the segments into which it can be divided.

    Raises:
        BadVideo, VideoError: as :func:`open_video`.
    """
    with open_video(source, storage_options) as video:
        return video.fps, video.segments(segment_s, most)


def _number_of_frames(source: VideoSource, storage_options: Mapping[str, Any] | None) -> int:
    if not isinstance(source, str | os.PathLike) and not source.seekable():
        raise VideoError(
            "read", "not_seekable", "extraction_total reads a video twice, and this one cannot seek"
        )
    try:
        with open_video(source, storage_options) as video:
            return video.count_pictures()
    except Irregular:
        with open_video(source, storage_options) as video:
            return video.count_frames()


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


def _regular(frames: Iterator[TimedFrame], segment: Segment) -> Iterator[TimedFrame]:
    """The frames of a segment; those of the whole video as they are."""
    last = None
    for timed in frames:
        if segment != WHOLE and (last is not None and timed.pts <= last):
            raise Irregular("timestamps go back")
        last = timed.pts
        if segment.since is None or timed.pts >= segment.since:
            yield timed


def _at_least_one(frames: Iterator[ShownFrame]) -> Iterator[ShownFrame]:
    """The frames that are shown; the first one at 0 ms where the output shows none."""
    first = None
    is_shown = False
    for shown in frames:
        if shown.timestamps_ms:
            is_shown, first = True, None
            yield shown
        elif first is None and not is_shown:
            first = shown.frame
    if first is not None:
        yield ShownFrame(first, (0.0,))
    elif not is_shown:
        raise BadVideo("decode", "no_frames", "no frame could be decoded")
