"""Read the packets of a stream from its beginning, or from a random access point in its middle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from rayclip.media.container import read_packets
from rayclip.media.gop import Irregular, has_several_parts
from rayclip.media.keyframes import VideoPacket, is_random_access_point
from rayclip.media.sampling import Clock, Span
from rayclip.media.segments import WHOLE, Segment
from rayclip.media.watchdog import LIBAV

SEEKABLE_FORMATS = {"mov", "matroska"}  # packets have their pictures' times, which increase
MAX_PACKETS_AFTER_SEEK = 10_000  # until a random access point is found
SEEK_MARGINS_S = (0, 2, 10)  # some demuxers seek by dts, which precedes pts


class PacketReader:
    """Reads the packets of an open stream."""

    def __init__(
        self, container: InputContainer, stream: VideoStream, clock: Clock, can_seek: bool
    ) -> None:
        self._container = container
        self._stream = stream
        self._clock = clock
        self._can_seek = can_seek

    @property
    def can_start_anywhere(self) -> bool:
        """Whether reading may start at any random access point: packets have the times of their
        pictures, and these increase."""
        formats = set(self._container.format.name.split(","))
        has_times = bool(SEEKABLE_FORMATS & formats)
        return self._can_seek and has_times and not has_several_parts(self._stream.index_entries)

    def packets(self, segment: Segment = WHOLE) -> Iterator[VideoPacket]:
        """Return the packets from a segment's first picture on; those of a whole video from the
        current position.

        Raises:
            Irregular: there is no random access point where the segment begins.
        """
        if segment.since is None:
            return read_packets(self._container, self._stream)
        for packets in self._from_before(segment.since):
            for packet in packets:
                if packet.pts == segment.since and self._may_start(packet):
                    packet.dts = None  # Matroska has none, and here libav's guess may be too late
                    return chain([packet], packets)
                if packet.dts is not None and packet.dts > segment.since:
                    break
        raise Irregular("there is no random access point where the segment should begin")

    def without_beginning(self, segment: Segment, span: Span) -> Segment:
        """Return a segment from the last random access point before a range on, if it begins
        earlier and reading may start there.

        Raises:
            Irregular: there is no such random access point, or the source cannot seek.
        """
        latest = span.at_start
        if latest is None or segment.since is not None:
            return segment
        begin = self._stream.start_time
        begin = self._clock.pts_at(0) if begin is None else begin
        if latest <= begin or not self.can_start_anywhere:
            return segment
        for packets in self._from_before(latest):
            for packet in islice(packets, MAX_PACKETS_AFTER_SEEK):
                if packet.dts is not None and packet.dts > latest:
                    break
                if packet.pts is not None and packet.pts <= latest and self._may_start(packet):
                    return segment._replace(since=packet.pts)
        raise Irregular("there is no random access point before the range")

    def random_access_points(self, places: Iterable[int]) -> Iterator[int]:
        """Yield the pts of a random access point near each of these pts, if there is one.

        Raises:
            Irregular: the source cannot seek.
        """
        for pts in places:
            for packet in islice(self._sought(pts), MAX_PACKETS_AFTER_SEEK):
                if packet.pts is not None and self._may_start(packet):
                    yield packet.pts
                    break

    def _from_before(self, pts: int) -> Iterator[Iterator[VideoPacket]]:
        """Yield packets from a keyframe shortly before a pts on, then from earlier ones."""
        for early_s in SEEK_MARGINS_S:
            yield self._sought(pts - int(early_s / self._clock.time_base))

    def _sought(self, pts: int) -> Iterator[VideoPacket]:
        try:
            with LIBAV:
                self._container.seek(pts, stream=self._stream)
        except av.FFmpegError as error:
            raise Irregular("the source cannot seek") from error
        return read_packets(self._container, self._stream)

    def _may_start(self, packet: VideoPacket) -> bool:
        """Whether reading may start with this packet's picture."""
        return not packet.is_discard and is_random_access_point(packet, self._stream.codec_context)
