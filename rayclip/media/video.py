"""Open a video, read it once and forward, and hand out the frames that are asked for.

Knows neither Ray nor torch, so that decoding processes stay small.
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
from rayclip.media.cropping import cropping
from rayclip.media.decoding import (
    SelectedFrame,
    TimedFrame,
    decode_everything,
    regular,
    selected_frames,
    timed_frames,
)
from rayclip.media.gop import DamagedStream, GopReader, Irregular, shows_several_parts
from rayclip.media.keyframes import VideoPacket, is_entry_point, may_split_pictures
from rayclip.media.planning import PlannedDecoder
from rayclip.media.sampling import (
    MICROSECONDS,
    EveryFrame,
    FrameRule,
    TickGrid,
)
from rayclip.media.segments import WHOLE, Segment, inner_borders, segments_between
from rayclip.media.source import VideoSource, can_seek
from rayclip.media.watchdog import LIBAV

DIVISIBLE = {"mov", "matroska"}  # their packets' times are those of their pictures, and go forward
MAX_PACKETS_TO_ENTRY = 10_000  # after a seek
SEEKS_BEFORE_S = (0, 2, 10)  # where decoding times are sought: they come before pts


Again = Callable[[], AbstractContextManager[tuple["Video", Iterator[VideoPacket]]]]
"""Opens a video anew, and gives it with all its packets."""


class Miscounted(Exception):
    """Not every packet is a frame, so that the wanted ones have other numbers."""


class Video:
    """An open video; make one with :func:`open_video`, and read it once."""

    def __init__(
        self, container: InputContainer, stream: VideoStream, again: Again | None = None
    ) -> None:
        """Take an open stream.

        Args:
            container: that it is in.
            stream: ready for decoding.
            again: opens the video anew; None where it can be read only once.
        """
        if stream.time_base is None:
            raise BadVideo("open", Code.NO_TIME_BASE, "the video stream has no time base")
        self._container = container
        self._stream = stream
        self._codec = stream.codec_context
        self._again = again
        self._time_base = stream.time_base
        self._start_us = start_us(container, stream)
        self._crop = cropping(stream)
        rate = stream.average_rate or stream.guessed_rate
        self.fps = float(rate) if rate else math.nan
        self.duration_s = (container.duration or 0) / MICROSECONDS

    def count_pictures(self) -> int:
        """Count the pictures from the packets alone, which is cheap.

        Raises:
            Irregular: they do not tell.
        """
        if may_split_pictures(self._codec):
            raise Irregular("two packets may be the fields of one picture")
        pictures = 0
        for gop in GopReader(self._packets(), self._codec):
            if gop.leading and not pictures:
                raise Irregular("pictures at the beginning may need others before them")
            pictures += len(gop.leading) + len(gop.trailing)
        return pictures

    def count_frames(self) -> int:
        """Decode everything, only to count."""
        return sum(1 for _ in decode_everything(self._codec, self._packets()))

    def selected_frames(
        self,
        extraction_fps: Fraction | None = None,
        numbers: Collection[int] | None = None,
        segment: Segment = WHOLE,
        by_packets: bool = True,
    ) -> Iterator[SelectedFrame]:
        """Decode what is needed, and give each frame that the output shows, once.

        Args:
            extraction_fps: output frames per second; None gives every frame at its own time.
            numbers: without extraction_fps: only the frames of these numbers, from 0.
            segment: what to give of the video, the numbers aside.
            by_packets: whether the numbers are of pictures counted from packets.

        Raises:
            BadVideo: nothing could be decoded (stage ``decode``).
            VideoError: it could not be read (stage ``read``).
            Irregular: this segment cannot be decoded by itself.
            Miscounted: numbers that were counted from packets are not those of frames. What was
                given until then is not what was asked for.
        """
        rule: FrameRule
        if extraction_fps is not None:
            rule = TickGrid(self._time_base, self._start_us, extraction_fps)
            frames = self._planned(rule, segment)
        elif numbers is not None:
            rule = EveryFrame(self._time_base, self._start_us, numbers)
            frames = (
                self._counted(rule)
                if by_packets
                else selected_frames(self._timed(self._packets()), rule)
            )
        else:
            rule = EveryFrame(self._time_base, self._start_us)
            timed = self._timed(self._packets_of(segment))
            frames = selected_frames(regular(timed, segment), rule, until=segment.until)
        if segment == WHOLE:
            shown = self._at_least_one(frames)
        else:
            shown = (frame for frame in frames if frame.timestamps_ms)
        if numbers is not None:
            shown = islice(shown, max(1, len(numbers)))
        return shown if self._crop is None else map(self._cropped, shown)

    def segments(self, segment_s: float, most: int) -> list[Segment]:
        """Divide the video at entry points near to equal lengths; one segment where it cannot be.

        Args:
            segment_s: seconds of a segment, at the least.
            most: segments.
        """
        if not DIVISIBLE & set(self._container.format.name.split(",")):
            return [WHOLE]
        if shows_several_parts(self._stream.index_entries):
            return [WHOLE]
        start_s = self._start_us / MICROSECONDS
        found = []
        for border in inner_borders(self.duration_s, segment_s, most):
            try:
                self._seek(int((start_s + border) / self._time_base))
            except Irregular:
                return [WHOLE]
            for packet in islice(self._packets(), MAX_PACKETS_TO_ENTRY):
                if packet.pts is not None and self._may_begin_at(packet):
                    found.append(packet.pts)
                    break
        return segments_between(found)

    def _planned(self, rule: FrameRule, segment: Segment) -> Iterator[SelectedFrame]:
        gops = GopReader(self._packets_of(segment), self._codec)
        planned = PlannedDecoder(self._codec, gops, rule, since=segment.since, until=segment.until)
        try:
            yield from planned.selected_frames()
            return
        except Irregular as error:
            if segment != WHOLE:
                raise
            again = self._again if isinstance(error, DamagedStream) else None
        with again() if again else nullcontext((self, planned.rest())) as (video, packets):
            timed = video._timed(packets)
            yield from selected_frames(timed, rule, number=planned.number, since=planned.resume)

    def _counted(self, rule: EveryFrame) -> Iterator[SelectedFrame]:
        """The frames of numbers that were counted from packets.

        Raises:
            Miscounted: a packet gives no frame, or one that its time does not tell.
        """
        gops = GopReader(self._packets(), self._codec)
        try:
            yield from PlannedDecoder(self._codec, gops, rule).selected_frames()
        except Irregular as error:
            raise Miscounted from error

    def _timed(self, packets: Iterator[VideoPacket]) -> Iterator[TimedFrame]:
        rate = self._stream.guessed_rate or self._stream.average_rate or Fraction(25)
        return timed_frames(decode_everything(self._codec, packets), self._time_base, rate)

    def _at_least_one(self, frames: Iterator[SelectedFrame]) -> Iterator[SelectedFrame]:
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
            yield SelectedFrame(first, (0.0,))
        elif not is_shown:
            raise self._without_frames()

    def _without_frames(self) -> BadVideo:
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
                "no frame could be decoded: the video stream says no size, or one of more than "
                f"{MAX_PIXELS} pixels a frame",
            )
        return BadVideo("decode", Code.NO_FRAMES, "no frame could be decoded")

    def _cropped(self, shown: SelectedFrame) -> SelectedFrame:
        assert self._crop is not None
        return replace(shown, frame=self._crop(shown.frame))

    def _packets_of(self, segment: Segment) -> Iterator[VideoPacket]:
        if segment.since is None:
            return self._packets()
        for early_s in SEEKS_BEFORE_S:
            self._seek(segment.since - int(early_s / self._time_base))
            packets = self._packets()
            for packet in packets:
                if packet.pts == segment.since and self._may_begin_at(packet):
                    return chain([packet], packets)
                if packet.dts is not None and packet.dts > segment.since:
                    break
        raise Irregular("there is no entry point where the segment should begin")

    def _may_begin_at(self, packet: VideoPacket) -> bool:
        """Whether a segment may begin with this packet's picture."""
        return not packet.is_discard and is_entry_point(packet, self._codec)

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

    @contextmanager
    def again() -> Iterator[tuple[Video, Iterator[VideoPacket]]]:
        with open_stream(source, storage_options or {}) as opened:
            yield Video(*opened), read_packets(*opened)

    with open_stream(source, storage_options or {}) as (container, stream):
        yield Video(container, stream, again if can_be_read_again(source) else None)


def can_be_read_again(source: VideoSource) -> bool:
    return isinstance(source, str | os.PathLike) or can_seek(source)
