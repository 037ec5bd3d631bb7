"""Open a video, read it once, forward, and yield the requested frames.

Imports neither Ray nor torch, so that decoding processes stay small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from fractions import Fraction
from itertools import islice, takewhile
from typing import Any

from av.container import InputContainer
from av.video.stream import VideoStream

from rayclip.errors import BadVideo, Code
from rayclip.io.remote import BLOCK_BYTES
from rayclip.media.container import no_frames_error, open_stream, read_packets, start_us
from rayclip.media.cropping import crop_function
from rayclip.media.decoding import (
    SelectedFrame,
    TimedFrame,
    decode_all,
    selected_frames,
    timed_frames,
)
from rayclip.media.frame_choice import MICROSECONDS, FrameChoice
from rayclip.media.gop import DamagedStream, GopReader, Irregular
from rayclip.media.keyframes import VideoPacket, may_split_pictures
from rayclip.media.packets import PacketReader
from rayclip.media.planning import PlannedDecoder
from rayclip.media.sampling import Clock, FrameRule, Span, frame_rule
from rayclip.media.segments import WHOLE, Segment, inner_boundaries, split_at
from rayclip.media.source import VideoSource, can_read_twice

Reopen = Callable[[], AbstractContextManager[tuple["Video", Iterator[VideoPacket]]]]
"""Opens a video again and returns it with all its packets."""


class MisleadingPackets(Exception):
    """Packets do not tell which frames a video has, or an index not where they are.

    Frames that were selected by them may be wrong. Only decoding from the beginning tells.
    """


class Video:
    """An open video, to be read once; created by :func:`open_video`.

    Attributes:
        clock: of its presentation.
        fps: the video's own average frame rate; NaN if it is unknown.
        duration_s: from the container, in seconds; 0 if unknown.
    """

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
        self.clock = Clock(stream.time_base, start_us(container, stream))
        self._reader = PacketReader(container, stream, self.clock, can_seek=reopen is not None)
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
        span = Span.of(choice, self.clock)
        start = self._reader.without_beginning(WHOLE, span)
        pictures = 0
        is_first = True
        for gop in GopReader(self._reader.packets(start), self._codec):
            if gop.leading and is_first and start == WHOLE:
                raise Irregular("the first pictures may need missing pictures before them")
            pictures += sum(picture.pts in span for picture in (*gop.leading, *gop.trailing))
            if span.is_after(gop.start):
                break
            is_first = False
        return pictures

    def count_frames(self, choice: FrameChoice) -> int:
        """Count the frames in the range of a choice by decoding everything before its end."""
        span = Span.of(choice, self.clock)
        timed = self._decode_timed(self._reader.packets())
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
        rule = frame_rule(choice, self.clock, count)
        if by_decoding:
            frames = selected_frames(self._decode_timed(self._reader.packets()), rule)
        else:
            frames = self._decode_needed(choice, rule, segment)
        if segment == WHOLE:
            selected = self._at_least_one(frames, choice)
        else:
            selected = (frame for frame in frames if frame.timestamps_ms)
        if choice.total is not None and count:
            selected = islice(selected, min(choice.total, count))
        return selected if self._crop is None else map(self._cropped, selected)

    def frames_of(self, rule: FrameRule, by_decoding: bool = False) -> Iterator[SelectedFrame]:
        """Decode the frames of any rule that does not count them, from a point before its range.

        Raises:
            Irregular: decoding cannot start there; never ``by_decoding``. Others are those of
                :meth:`selected_frames`.
        """
        if by_decoding:
            frames = selected_frames(self._decode_timed(self._reader.packets()), rule)
        else:
            start = self._reader.without_beginning(WHOLE, rule.span)
            frames = self._decode_planned(rule, start, can_go_on=start == WHOLE)
        return frames if self._crop is None else map(self._cropped, frames)

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
        if not self._reader.can_start_anywhere:
            return [WHOLE]
        span = Span.of(choice, self.clock)
        begin_s, end_s = choice.span_s(self.duration_s)
        boundaries = inner_boundaries(end_s - begin_s, segment_s, max_segments)
        us = (round((begin_s + boundary) * MICROSECONDS) for boundary in boundaries)
        try:
            found = [*self._reader.random_access_points(map(self.clock.pts_at, us))]
        except Irregular:
            return [WHOLE]
        return split_at(pts for pts in found if pts in span and pts != span.first)

    def _decode_needed(
        self, choice: FrameChoice, rule: FrameRule, segment: Segment
    ) -> Iterator[SelectedFrame]:
        """Yield the frames of a segment that are shown, and maybe others.

        Raises:
            Irregular: a segment cannot be decoded by itself.
            MisleadingPackets: the whole video can only be decoded from the beginning.
        """
        try:
            start = self._reader.without_beginning(segment, rule.span)
            if choice.is_every_frame and not choice.has_range and start == WHOLE:
                yield from selected_frames(self._decode_timed(self._reader.packets()), rule)
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
        gops = GopReader(self._reader.packets(segment), self._codec)
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
        for timed in timed_frames(decoded, self.clock.time_base, rate):
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
            raise no_frames_error(self._container, self._codec)

    def _cropped(self, selected: SelectedFrame) -> SelectedFrame:
        assert self._crop is not None
        return replace(selected, frame=self._crop(selected.frame))


@contextmanager
def open_video(
    source: VideoSource,
    storage_options: Mapping[str, Any] | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[Video]:
    """Open a video for one read, forward; it is closed at the end of the ``with`` block.

    Args:
        source: a local path, an fsspec URL or a binary file object.
        storage_options: passed to fsspec for URLs.
        block_bytes: how much of a remote file is requested at a time.

    Raises:
        BadVideo: not a decodable video (stage ``open``).
        VideoError: the source could not be read (stage ``read``).
    """

    @contextmanager
    def reopen() -> Iterator[tuple[Video, Iterator[VideoPacket]]]:
        with open_stream(source, storage_options or {}) as opened:
            yield Video(*opened), read_packets(*opened)

    with open_stream(source, storage_options or {}, block_bytes) as (container, stream):
        yield Video(container, stream, reopen if can_read_twice(source) else None)
