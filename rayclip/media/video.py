"""Open a video, read it once, forward, and yield the requested frames.

Imports neither Ray nor torch, so that decoding processes stay small.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from fractions import Fraction
from itertools import chain, islice, takewhile
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
    decode_all,
    selected_frames,
    timed_frames,
)
from rayclip.media.frame_choice import MICROSECONDS, FrameChoice
from rayclip.media.gop import DamagedStream, GopReader, Irregular, has_several_parts
from rayclip.media.keyframes import VideoPacket, is_random_access_point, may_split_pictures
from rayclip.media.planning import PlannedDecoder
from rayclip.media.sampling import Clock, FrameRule, Span, frame_rule
from rayclip.media.segments import WHOLE, Segment, inner_boundaries, split_at
from rayclip.media.source import VideoSource, can_seek
from rayclip.media.watchdog import LIBAV

SEEKABLE_FORMATS = {"mov", "matroska"}  # packets have their pictures' times, which increase
MAX_PACKETS_AFTER_SEEK = 10_000  # until a random access point is found
SEEK_MARGINS_S = (0, 2, 10)  # some demuxers seek by dts, which precedes pts


Reopen = Callable[[], AbstractContextManager[tuple["Video", Iterator[VideoPacket]]]]
"""Opens a video again and returns it with all its packets."""


class MisleadingPackets(Exception):
    """Packets do not tell which frames a video has, or an index not where they are.

    Frames that were selected by them may be wrong. Only decoding from the beginning tells.
    """


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
        self._clock = Clock(stream.time_base, start_us(container, stream))
        self._has_pictures = False  # whether a picture was decoded, or known not to be wanted
        self._crop = crop_function(stream)
        rate = stream.average_rate or stream.guessed_rate
        self.fps = float(rate) if rate else math.nan
        self.duration_s = (container.duration or 0) / MICROSECONDS

    def count_pictures(self, choice: FrameChoice) -> int:
        """Count the pictures in the range of a choice from the packets alone, which is cheap.

        Raises:
            Irregular: the packets cannot be trusted.
        """
        if may_split_pictures(self._codec):
            raise Irregular("two packets may be the fields of one picture")
        span = Span.of(choice, self._clock)
        start = self._start_of(span, WHOLE)
        pictures = 0
        is_first = True
        for gop in GopReader(self._segment_packets(start), self._codec):
            if gop.leading and is_first and start == WHOLE:
                raise Irregular("the first pictures may need missing pictures before them")
            pictures += sum(picture.pts in span for picture in (*gop.leading, *gop.trailing))
            if span.is_after(gop.start):
                break
            is_first = False
        return pictures

    def count_frames(self, choice: FrameChoice) -> int:
        """Count the frames in the range of a choice by decoding everything before its end."""
        span = Span.of(choice, self._clock)
        timed = self._decode_timed(self._packets())
        until_end = takewhile(lambda frame: not span.is_after(frame.pts), timed)
        return sum(frame.pts in span for frame in until_end)

    def selected_frames(
        self,
        choice: FrameChoice,
        segment: Segment = WHOLE,
        count: int | None = None,
        by_decoding: bool = False,
    ) -> Iterator[SelectedFrame]:
        """Decode what is needed, and yield each frame that the output shows, once.

        Args:
            choice: which frames to select.
            segment: the part of the video to yield; the whole if frames are numbered.
            count: how many frames the range has; needed for ``total``.
            by_decoding: whether to decode everything from the beginning, without trust in packets
                and index.

        Raises:
            BadVideo: nothing could be decoded (stage ``decode``), or the range has no frame.
            VideoError: the source could not be read (stage ``read``).
            Irregular: this segment cannot be decoded by itself.
            MisleadingPackets: the frames yielded so far may be wrong; never ``by_decoding``.
        """
        rule = frame_rule(choice, self._clock, count)
        if by_decoding:
            frames = selected_frames(self._decode_timed(self._packets()), rule)
        else:
            frames = self._decode_needed(choice, rule, segment)
        if segment == WHOLE:
            selected = self._at_least_one(frames, choice)
        else:
            selected = (frame for frame in frames if frame.timestamps_ms)
        if choice.total is not None and count:
            selected = islice(selected, min(choice.total, count))
        return selected if self._crop is None else map(self._cropped, selected)

    def segments(self, choice: FrameChoice, segment_s: float, max_segments: int) -> list[Segment]:
        """Divide the range of a choice at random access points into segments of about equal
        duration.

        Args:
            choice: which frames are wanted.
            segment_s: minimum duration of a segment in seconds.
            max_segments: maximum number of segments.

        Returns:
            One segment if the video cannot be divided.
        """
        if not self._can_start_anywhere():
            return [WHOLE]
        span = Span.of(choice, self._clock)
        begin_s, end_s = choice.span_s(self.duration_s)
        found = []
        for boundary_s in inner_boundaries(end_s - begin_s, segment_s, max_segments):
            try:
                self._seek(self._clock.pts_at(round((begin_s + boundary_s) * MICROSECONDS)))
            except Irregular:
                return [WHOLE]
            for packet in islice(self._packets(), MAX_PACKETS_AFTER_SEEK):
                if packet.pts is not None and self._may_start_segment(packet):
                    if packet.pts in span and packet.pts != span.first:
                        found.append(packet.pts)
                    break
        return split_at(found)

    def _decode_needed(
        self, choice: FrameChoice, rule: FrameRule, segment: Segment
    ) -> Iterator[SelectedFrame]:
        """Yield the frames of a segment that are shown, and maybe others.

        Raises:
            Irregular: a segment cannot be decoded by itself.
            MisleadingPackets: the whole video can only be decoded from the beginning.
        """
        try:
            start = self._start_of(rule.span, segment)
            if choice.is_every_frame and not choice.has_range and start == WHOLE:
                yield from selected_frames(self._decode_timed(self._packets()), rule)
                return
            if choice.is_numbered and may_split_pictures(self._codec):
                raise Irregular("two packets may be the fields of one picture")
            can_go_on = choice.fps is not None and start == WHOLE
            yield from self._decode_planned(rule, start, can_go_on)
        except Irregular as error:
            if segment != WHOLE:
                raise
            raise MisleadingPackets from error

    def _decode_planned(
        self, rule: FrameRule, segment: Segment, can_go_on: bool
    ) -> Iterator[SelectedFrame]:
        """Decode what packets show to be wanted; if they cannot be trusted, decode the rest.

        Args:
            rule: which pictures are shown, and when.
            segment: the part of the video to decode.
            can_go_on: whether the ticks yielded before are right in any case.

        Raises:
            Irregular: packets cannot be trusted, and decoding cannot go on.
        """
        gops = GopReader(self._segment_packets(segment), self._codec)
        planned = PlannedDecoder(self._codec, gops, rule, since=segment.since, until=segment.until)
        try:
            yield from planned.selected_frames()
            self._has_pictures = True
            return
        except Irregular as error:
            if not can_go_on:
                raise
            reopen = self._reopen if isinstance(error, DamagedStream) else None
        remaining = (self, planned.remaining_packets())
        with reopen() if reopen else nullcontext(remaining) as (video, packets):
            timed = video._decode_timed(packets)
            yield from selected_frames(timed, rule, since=planned.resume_pts)
            self._has_pictures |= video._has_pictures

    def _decode_timed(self, packets: Iterator[VideoPacket]) -> Iterator[TimedFrame]:
        rate = self._stream.guessed_rate or self._stream.average_rate or Fraction(25)
        decoded = decode_all(self._codec, packets)
        for timed in timed_frames(decoded, self._clock.time_base, rate):
            self._has_pictures = True
            yield timed

    def _at_least_one(
        self, frames: Iterator[SelectedFrame], choice: FrameChoice
    ) -> Iterator[SelectedFrame]:
        """Yield the frames that are shown, or the first that may stand in if there are none."""
        stand_in = None
        is_shown = False
        for selected in frames:
            if selected.timestamps_ms:
                is_shown, stand_in = True, None
                yield selected
            elif stand_in is None and not is_shown and selected.stand_in_ms is not None:
                stand_in = SelectedFrame(selected.frame, (selected.stand_in_ms,))
        if stand_in is not None:
            yield stand_in
        elif not is_shown:
            if choice.has_range and self._has_pictures:
                lasts = f", and it lasts {self.duration_s:.1f} s" if self.duration_s else ""
                raise BadVideo(
                    "decode",
                    Code.EMPTY_RANGE,
                    f"it has no frame {choice.range_words()}{lasts}",
                )
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

    def _can_start_anywhere(self) -> bool:
        """Whether decoding may start at any random access point: packets have the times of their
        pictures, and these increase."""
        formats = set(self._container.format.name.split(","))
        return bool(SEEKABLE_FORMATS & formats) and not has_several_parts(
            self._stream.index_entries
        )

    def _start_of(self, span: Span, segment: Segment) -> Segment:
        """A segment without what is before the last random access point before a range.

        Raises:
            Irregular: there is none, or the source cannot seek.
        """
        if span.first is None or segment.since is not None or self._reopen is None:
            return segment
        begins = self._stream.start_time
        begins = self._clock.pts_at(0) if begins is None else begins
        if span.first <= begins or not self._can_start_anywhere():
            return segment
        for packet in self._packets_before(span.first):
            assert packet.pts is not None
            if packet.pts <= span.first and self._may_start_segment(packet):
                return segment._replace(since=packet.pts)
        raise Irregular("there is no random access point before the range")

    def _segment_packets(self, segment: Segment) -> Iterator[VideoPacket]:
        if segment.since is None:
            return self._packets()
        for early_s in SEEK_MARGINS_S:
            self._seek(segment.since - int(early_s / self._clock.time_base))
            packets = self._packets()
            for packet in packets:
                if packet.pts == segment.since and self._may_start_segment(packet):
                    packet.dts = None  # Matroska has none, and here libav's guess may be too late
                    return chain([packet], packets)
                if packet.dts is not None and packet.dts > segment.since:
                    break
        raise Irregular("there is no random access point where the segment should begin")

    def _packets_before(self, pts: int) -> Iterator[VideoPacket]:
        """Yield packets with times from shortly before a pts, and again from longer before it."""
        for early_s in SEEK_MARGINS_S:
            self._seek(pts - int(early_s / self._clock.time_base))
            for packet in islice(self._packets(), MAX_PACKETS_AFTER_SEEK):
                if packet.dts is not None and packet.dts > pts:
                    break
                if packet.pts is not None:
                    yield packet

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
