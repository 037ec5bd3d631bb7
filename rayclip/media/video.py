"""Open a video, read it once, forward, and yield the requested frames.

Imports neither Ray nor torch, so that decoding processes stay small.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from fractions import Fraction
from itertools import chain, islice
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from rayclip.errors import BadVideo, Code
from rayclip.media.container import MAX_PIXELS, open_stream, read_packets, start_us
from rayclip.media.cropping import crop_function
from rayclip.media.decoding import (
    SelectedFrame,
    TimedFrame,
    check_segment,
    decode_all,
    selected_frames,
    timed_frames,
)
from rayclip.media.gop import DamagedStream, GopReader, Irregular, has_several_parts
from rayclip.media.keyframes import VideoPacket, is_random_access_point, may_split_pictures
from rayclip.media.planning import PlannedDecoder
from rayclip.media.sampling import (
    MICROSECONDS,
    EveryFrame,
    FrameRule,
    TickGrid,
)
from rayclip.media.segments import WHOLE, Segment, inner_boundaries, split_at
from rayclip.media.source import VideoSource, can_seek
from rayclip.media.watchdog import LIBAV

DIVISIBLE_FORMATS = {"mov", "matroska"}  # packets have their pictures' times, which increase
MAX_PACKETS_AFTER_SEEK = 10_000  # until a random access point is found
SEEK_MARGINS_S = (0, 2, 10)  # some demuxers seek by dts, which precedes pts


Reopen = Callable[[], AbstractContextManager[tuple["Video", Iterator[VideoPacket]]]]
"""Opens a video again and returns it with all its packets."""


class Miscounted(Exception):
    """Not every packet is a frame, so numbers counted from packets are wrong."""


class Video:
    """An open video, to be read once; created by :func:`open_video`."""

    def __init__(
        self, container: InputContainer, stream: VideoStream, reopen: Reopen | None = None
    ) -> None:
        """Wrap an open stream.

        Args:
            container: of the stream.
            stream: ready for decoding.
            reopen: opens the video again; None if it can be read only once.
        """
        if stream.time_base is None:
            raise BadVideo("open", Code.NO_TIME_BASE, "the video stream has no time base")
        self._container = container
        self._stream = stream
        self._codec = stream.codec_context
        self._reopen = reopen
        self._time_base = stream.time_base
        self._start_us = start_us(container, stream)
        self._crop = crop_function(stream)
        rate = stream.average_rate or stream.guessed_rate
        self.fps = float(rate) if rate else math.nan
        self.duration_s = (container.duration or 0) / MICROSECONDS

    def count_pictures(self) -> int:
        """Count the pictures from the packets alone, which is cheap.

        Raises:
            Irregular: the packets cannot be trusted.
        """
        if may_split_pictures(self._codec):
            raise Irregular("two packets may be the fields of one picture")
        pictures = 0
        for gop in GopReader(self._packets(), self._codec):
            if gop.leading and not pictures:
                raise Irregular("the first pictures may need missing pictures before them")
            pictures += len(gop.leading) + len(gop.trailing)
        return pictures

    def count_frames(self) -> int:
        """Count the frames by decoding everything."""
        return sum(1 for _ in decode_all(self._codec, self._packets()))

    def selected_frames(
        self,
        extraction_fps: Fraction | None = None,
        numbers: Collection[int] | None = None,
        segment: Segment = WHOLE,
        by_packets: bool = True,
    ) -> Iterator[SelectedFrame]:
        """Decode what is needed, and yield each frame that the output shows, once.

        Args:
            extraction_fps: output frames per second; None yields every frame at its own time.
            numbers: without extraction_fps: only the frames with these numbers, from 0.
            segment: the part of the video to yield; ignored with ``numbers``.
            by_packets: whether the numbers were counted from packets.

        Raises:
            BadVideo: nothing could be decoded (stage ``decode``).
            VideoError: the source could not be read (stage ``read``).
            Irregular: this segment cannot be decoded by itself.
            Miscounted: numbers counted from packets are not those of frames. The frames yielded
                so far may be wrong.
        """
        rule: FrameRule
        if extraction_fps is not None:
            rule = TickGrid(self._time_base, self._start_us, extraction_fps)
            frames = self._decode_planned(rule, segment)
        elif numbers is not None:
            rule = EveryFrame(self._time_base, self._start_us, numbers)
            frames = (
                self._decode_numbered(rule)
                if by_packets
                else selected_frames(self._decode_timed(self._packets()), rule)
            )
        else:
            rule = EveryFrame(self._time_base, self._start_us)
            timed = self._decode_timed(self._segment_packets(segment))
            frames = selected_frames(check_segment(timed, segment), rule, until=segment.until)
        if segment == WHOLE:
            selected = self._at_least_one(frames)
        else:
            selected = (frame for frame in frames if frame.timestamps_ms)
        if numbers is not None:
            selected = islice(selected, max(1, len(numbers)))
        return selected if self._crop is None else map(self._cropped, selected)

    def segments(self, segment_s: float, max_segments: int) -> list[Segment]:
        """Divide the video at random access points into segments of about equal duration.

        Args:
            segment_s: minimum duration of a segment in seconds.
            max_segments: maximum number of segments.

        Returns:
            One segment if the video cannot be divided.
        """
        if not DIVISIBLE_FORMATS & set(self._container.format.name.split(",")):
            return [WHOLE]
        if has_several_parts(self._stream.index_entries):
            return [WHOLE]
        start_s = self._start_us / MICROSECONDS
        found = []
        for boundary_s in inner_boundaries(self.duration_s, segment_s, max_segments):
            try:
                self._seek(int((start_s + boundary_s) / self._time_base))
            except Irregular:
                return [WHOLE]
            for packet in islice(self._packets(), MAX_PACKETS_AFTER_SEEK):
                if packet.pts is not None and self._may_start_segment(packet):
                    found.append(packet.pts)
                    break
        return split_at(found)

    def _decode_planned(self, rule: FrameRule, segment: Segment) -> Iterator[SelectedFrame]:
        gops = GopReader(self._segment_packets(segment), self._codec)
        planned = PlannedDecoder(self._codec, gops, rule, since=segment.since, until=segment.until)
        try:
            yield from planned.selected_frames()
            return
        except Irregular as error:
            if segment != WHOLE:
                raise
            reopen = self._reopen if isinstance(error, DamagedStream) else None
        remaining = (self, planned.remaining_packets())
        with reopen() if reopen else nullcontext(remaining) as (video, packets):
            timed = video._decode_timed(packets)
            yield from selected_frames(timed, rule, number=planned.number, since=planned.resume_pts)

    def _decode_numbered(self, rule: EveryFrame) -> Iterator[SelectedFrame]:
        """Yield the frames with numbers that were counted from packets.

        Raises:
            Miscounted: a packet yields no frame, or one with an unexpected time.
        """
        gops = GopReader(self._packets(), self._codec)
        try:
            yield from PlannedDecoder(self._codec, gops, rule).selected_frames()
        except Irregular as error:
            raise Miscounted from error

    def _decode_timed(self, packets: Iterator[VideoPacket]) -> Iterator[TimedFrame]:
        rate = self._stream.guessed_rate or self._stream.average_rate or Fraction(25)
        return timed_frames(decode_all(self._codec, packets), self._time_base, rate)

    def _at_least_one(self, frames: Iterator[SelectedFrame]) -> Iterator[SelectedFrame]:
        """Yield the frames that are shown; the first frame at 0 ms if the output shows none."""
        first = None
        is_shown = False
        for selected in frames:
            if selected.timestamps_ms:
                is_shown, first = True, None
                yield selected
            elif first is None and not is_shown:
                first = selected.frame
        if first is not None:
            yield SelectedFrame(first, (0.0,))
        elif not is_shown:
            raise self._no_frames_error()

    def _no_frames_error(self) -> BadVideo:
        if self._container.format.name == "webp_pipe":
            return BadVideo(
                "decode",
                Code.ANIMATED_WEBP,
                "this is an animated WebP, which libav cannot decode: make a video or a GIF of it",
            )
        if not self._codec.width:
            return BadVideo(
                "decode",
                Code.NO_SIZE,
                "no frame could be decoded: the video stream has no size, or one of more than "
                f"{MAX_PIXELS} pixels a frame",
            )
        return BadVideo("decode", Code.NO_FRAMES, "no frame could be decoded")

    def _cropped(self, selected: SelectedFrame) -> SelectedFrame:
        assert self._crop is not None
        return replace(selected, frame=self._crop(selected.frame))

    def _segment_packets(self, segment: Segment) -> Iterator[VideoPacket]:
        if segment.since is None:
            return self._packets()
        for early_s in SEEK_MARGINS_S:
            self._seek(segment.since - int(early_s / self._time_base))
            packets = self._packets()
            for packet in packets:
                if packet.pts == segment.since and self._may_start_segment(packet):
                    return chain([packet], packets)
                if packet.dts is not None and packet.dts > segment.since:
                    break
        raise Irregular("there is no random access point where the segment should begin")

    def _may_start_segment(self, packet: VideoPacket) -> bool:
        """Whether a segment may start with this packet's picture."""
        return not packet.is_discard and is_random_access_point(packet, self._codec)

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
        storage_options: passed to fsspec for URLs.

    Raises:
        BadVideo: not a decodable video (stage ``open``).
        VideoError: the source could not be read (stage ``read``).
    """

    @contextmanager
    def reopen() -> Iterator[tuple[Video, Iterator[VideoPacket]]]:
        with open_stream(source, storage_options or {}) as opened:
            yield Video(*opened), read_packets(*opened)

    with open_stream(source, storage_options or {}) as (container, stream):
        yield Video(container, stream, reopen if can_read_twice(source) else None)


def can_read_twice(source: VideoSource) -> bool:
    """Whether a source can be opened again, or can seek back to its beginning."""
    return isinstance(source, str | os.PathLike) or can_seek(source)
