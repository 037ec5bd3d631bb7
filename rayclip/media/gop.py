"""Collect packets into groups of pictures (GOPs), with the presentation order of their pictures.

Nothing is decoded here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter

from av.index import IndexEntry
from av.video.codeccontext import VideoCodecContext

from rayclip.media.frame_numbers import NO_PICTURE, FrameNumbers
from rayclip.media.keyframes import (
    VideoPacket,
    has_picture,
    has_reliable_keyframes,
    is_hidden,
    is_random_access_point,
    may_be_reordered,
)

MAX_GOP_BYTES = 64 * 2**20  # memory of one GOP: some minutes of a screen recording
PACKET_OVERHEAD = 512  # bytes of a packet besides its content
REORDERED_AFTER = 2  # after this many packets, a stream that reorders has done so


class Irregular(Exception):
    """The packets do not show which picture is shown when; only a decoder can."""


class DamagedStream(Irregular):
    """A packet or a picture is damaged; the decoder's output depends on everything before it."""


@dataclass(frozen=True)
class Picture:
    """A picture as described by its packet.

    Attributes:
        pts: presentation time, in units of the stream's time base.
        duration: in the same units; 0 if unknown.
        position: index of its packet in the GOP.
    """

    pts: int
    duration: int
    position: int


@dataclass
class Gop:
    """A group of pictures in decoding order, from one random access point to the next.

    Attributes:
        start: pts of the random access point.
        size: approximate bytes of memory.
        packets: all packets, including those of pictures that are not shown.
        leading: pictures before ``start``, which also need the previous GOP (open GOP).
        trailing: the others. Both in presentation order.
    """

    start: int
    size: int = 0
    packets: list[VideoPacket] = field(default_factory=list)
    leading: list[Picture] = field(default_factory=list)
    trailing: list[Picture] = field(default_factory=list)

    def add(self, packet: VideoPacket, pts: int, is_hidden: bool) -> None:
        if not packet.is_discard and not is_hidden:
            pictures = self.leading if pts < self.start else self.trailing
            pictures.append(Picture(pts, packet.duration or 0, len(self.packets)))
        self.packets.append(packet)
        self.size += packet.size + PACKET_OVERHEAD

    def sort(self) -> Gop:
        self.leading.sort(key=attrgetter("pts"))
        self.trailing.sort(key=attrgetter("pts"))
        return self


class EditListTracker:
    """Tracks which part of a stream an edit list shows.

    Packets before and after the part are flagged as discarded. If several parts are shown, packets
    alone do not predict references and order at the boundaries.
    """

    def __init__(self) -> None:
        self._first, self._last = math.inf, -math.inf  # pts of shown pictures so far
        self._before, self._after = -math.inf, math.inf  # pts of discarded ones on both sides
        self._last_dts = -math.inf

    def starts_new_part(self, packet: VideoPacket) -> bool:
        """Take the next packet; report whether another part starts near it."""
        pts, dts = packet.pts, packet.dts
        if dts is not None:
            if dts <= self._last_dts:
                return True
            self._last_dts = dts
        if pts is None:
            return False
        if not packet.is_discard:
            self._first, self._last = min(pts, self._first), max(pts, self._last)
        elif pts < self._first:
            if packet.is_keyframe and self._last >= self._first:  # starts in mid-stream
                return True
            self._before = max(pts, self._before)
        else:
            self._after = min(pts, self._after)
        return self._before >= self._first or self._after <= self._last


def has_several_parts(index: Iterable[IndexEntry]) -> bool:
    """Whether an edit list shows several parts, judging by the index (see EditListTracker)."""
    is_shown = is_left_out = False
    last = -math.inf
    for entry in index:
        if entry.timestamp <= last or (is_left_out and not entry.is_discard):
            return True
        last = entry.timestamp
        is_shown |= not entry.is_discard
        is_left_out |= is_shown and entry.is_discard and entry.is_keyframe
    return False


class GopReader:
    """Reads a stream forward, one GOP at a time."""

    def __init__(self, packets: Iterator[VideoPacket], codec: VideoCodecContext) -> None:
        self._packets = packets
        self._codec = codec
        self._gop: Gop | None = None
        self._ungrouped: list[VideoPacket] = []  # read, but not in a GOP
        self._frame_numbers = FrameNumbers(codec.extradata or b"") if codec.name == "h264" else None
        self._edit_list = EditListTracker()
        self._read = 0
        self._latest: int | None = None
        self._reorders = bool(codec.has_b_frames)
        self._must_reorder = False  # judging by the packets read so far
        self._has_reordered = False

    def __iter__(self) -> Iterator[Gop]:
        """Yield the GOPs of the stream.

        Raises:
            Irregular: a packet is damaged, has no time or an implausible one, or a GOP is too
                large for memory.
        """
        if not has_reliable_keyframes(self._codec.name):
            raise Irregular("the codec's keyframe flags are not reliable")
        for packet in self._packets:
            self._ungrouped.append(packet)
            pts = packet.pts
            if packet.is_corrupt:
                raise DamagedStream("a packet is damaged")
            if self._edit_list.starts_new_part(packet):
                raise DamagedStream(
                    "an edit list shows several parts of the stream, or times go back"
                )
            if pts is None:
                raise Irregular("a packet has no time")
            if self._read and _reconfigures_decoder(packet):
                raise Irregular("the decoder's configuration changes")
            missing = self._find_missing(packet)
            if missing is not None:
                raise DamagedStream(missing)
            can_start = is_random_access_point(packet, self._codec)
            if self._gop is None and not can_start:
                raise Irregular("the first packet is not a random access point")
            if can_start and not (packet.is_discard and self._read):
                finished, self._gop = self._gop, Gop(pts)
                if finished is not None:
                    yield self._checked_gop(finished)
            assert self._gop is not None
            self._gop.add(packet, pts, is_hidden(packet, self._codec))
            self._ungrouped.clear()
            self._read += 1
            if not packet.is_discard:
                self._track_order(packet, pts)
            if self._gop.size > MAX_GOP_BYTES:
                raise Irregular("a GOP is too large for memory")
        finished, self._gop = self._gop, None
        if finished is not None:
            yield self._checked_gop(finished)

    def remaining_packets(self) -> Iterator[VideoPacket]:
        """Yield all packets that were not returned in GOPs."""
        if self._gop is not None:
            yield from self._gop.packets
        yield from self._ungrouped
        yield from self._packets

    def _find_missing(self, packet: VideoPacket) -> str | None:
        if self._frame_numbers is not None:
            return self._frame_numbers.find_missing(bytes(packet))
        return None if has_picture(packet, self._codec) else NO_PICTURE

    def _track_order(self, packet: VideoPacket, pts: int) -> None:
        if self._latest is not None and pts < self._latest:
            if not self._reorders:
                raise Irregular("times go back")
            self._has_reordered = True
        elif self._reorders and not self._has_reordered and not self._must_reorder:
            self._must_reorder = may_be_reordered(packet, self._codec)
        self._latest = pts if self._latest is None else max(pts, self._latest)

    def _checked_gop(self, gop: Gop) -> Gop:
        if self._must_reorder and not self._has_reordered and self._read > REORDERED_AFTER:
            # The decoder reorders but the packets' times do not: the demuxer made them up, as it
            # does for AVI.
            self._ungrouped[:0] = gop.packets
            raise Irregular("the packets' times are decoding times")
        return gop.sort()


def _reconfigures_decoder(packet: VideoPacket) -> bool:
    """Whether a packet carries configuration that later packets need, too."""
    return (
        packet.has_sidedata("new_extradata")
        or packet.has_sidedata("param_change")
        or packet.has_sidedata("palette")
    )
