"""Packets in groups of pictures: what must be fed to a decoder together, and in which order the
pictures are shown. Nothing is decoded here."""

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
    is_entry_point,
    is_hidden,
    may_be_shown_before_others,
    tells_entry_points,
)

MAX_GOP_BYTES = 64 * 2**20  # bytes held of one group: some minutes of a screen recording
PACKET_OVERHEAD = 512  # bytes that a packet takes beside its content
REORDERED_AFTER = 2  # packets after which a stream that reorders has shown it


class Irregular(Exception):
    """The packets do not tell which picture is shown when; only a decoder can."""


class DamagedStream(Irregular):
    """A packet or a picture is damaged: what a decoder makes of that depends on all before it."""


@dataclass(frozen=True)
class Picture:
    """What a packet tells of its picture.

    Attributes:
        pts: when it is shown, and duration, in units of the stream's time base; 0 where unknown.
        place: the index of its packet in its group.
    """

    pts: int
    duration: int
    place: int


@dataclass
class Gop:
    """A group of pictures in decoding order, from one entry point to the next.

    Attributes:
        start: pts of the entry point.
        size: bytes that it takes, about.
        packets: all of them, also those of pictures that are not shown.
        leading: pictures before ``start``, which need the group before as well (open GOP).
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


class ShownPart:
    """Follows which part of a stream an edit list shows.

    What comes before and after the part is left out: its packets are discarded. Where several parts
    are shown, decoders make more of the borders than packets tell: of references, and of the order.
    """

    def __init__(self) -> None:
        self._first, self._last = math.inf, -math.inf  # pts shown so far,
        self._before, self._after = -math.inf, math.inf  # and left out on both sides
        self._last_dts = -math.inf

    def ends_before(self, packet: VideoPacket) -> bool:
        """Take the next packet; whether another part is shown from about here on."""
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
            if packet.is_keyframe and self._last >= self._first:  # it begins in the stream's middle
                return True
            self._before = max(pts, self._before)
        else:
            self._after = min(pts, self._after)
        return self._before >= self._first or self._after <= self._last


def shows_several_parts(index: Iterable[IndexEntry]) -> bool:
    """Whether an edit list does, as far as the index tells (see :class:`ShownPart`)."""
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
    """Reads a stream forward, one group at a time."""

    def __init__(self, packets: Iterator[VideoPacket], codec: VideoCodecContext) -> None:
        self._packets = packets
        self._codec = codec
        self._gop: Gop | None = None
        self._apart: list[VideoPacket] = []  # read, and in no group
        self._frame_numbers = FrameNumbers(codec.extradata or b"") if codec.name == "h264" else None
        self._part = ShownPart()
        self._read = 0
        self._latest: int | None = None
        self._reorders = bool(codec.has_b_frames)
        self._must_reorder = False  # the stream, as far as it was read
        self._has_reordered = False

    def __iter__(self) -> Iterator[Gop]:
        """The groups of the stream.

        Raises:
            Irregular: a packet is damaged, has no time, or has one that cannot be its picture's;
                or a group is too large to be held.
        """
        if not tells_entry_points(self._codec.name):
            raise Irregular("nobody says where decoding can begin")
        for packet in self._packets:
            self._apart.append(packet)
            pts = packet.pts
            if packet.is_corrupt:
                raise DamagedStream("a packet is damaged")
            if self._part.ends_before(packet):
                raise DamagedStream(
                    "an edit list shows several parts of the stream, or times go back"
                )
            if pts is None:
                raise Irregular("a packet has no time")
            if self._read and _changes_the_decoder(packet):
                raise Irregular("what the decoder must know changes")
            missing = self._what_is_missing(packet)
            if missing is not None:
                raise DamagedStream(missing)
            is_entry = is_entry_point(packet, self._codec)
            if self._gop is None and not is_entry:
                raise Irregular("the first packet is no entry point")
            if is_entry and not (packet.is_discard and self._read):
                finished, self._gop = self._gop, Gop(pts)
                if finished is not None:
                    yield self._checked(finished)
            assert self._gop is not None
            self._gop.add(packet, pts, is_hidden(packet, self._codec))
            self._apart.clear()
            self._read += 1
            if not packet.is_discard:
                self._note_order(packet, pts)
            if self._gop.size > MAX_GOP_BYTES:
                raise Irregular("a group of pictures is too large to be held")
        finished, self._gop = self._gop, None
        if finished is not None:
            yield self._checked(finished)

    def rest(self) -> Iterator[VideoPacket]:
        """All packets that were not given out in groups."""
        if self._gop is not None:
            yield from self._gop.packets
        yield from self._apart
        yield from self._packets

    def _what_is_missing(self, packet: VideoPacket) -> str | None:
        if self._frame_numbers is not None:
            return self._frame_numbers.what_is_missing(bytes(packet))
        return None if has_picture(packet, self._codec) else NO_PICTURE

    def _note_order(self, packet: VideoPacket, pts: int) -> None:
        if self._latest is not None and pts < self._latest:
            if not self._reorders:
                raise Irregular("times go back")
            self._has_reordered = True
        elif self._reorders and not self._has_reordered and not self._must_reorder:
            self._must_reorder = may_be_shown_before_others(packet, self._codec)
        self._latest = pts if self._latest is None else max(pts, self._latest)

    def _checked(self, gop: Gop) -> Gop:
        if self._must_reorder and not self._has_reordered and self._read > REORDERED_AFTER:
            # the decoder reorders but packets' times do not: AVI and the like, where the demuxer
            # makes them up
            self._apart[:0] = gop.packets
            raise Irregular("the packets' times are decoding times")
        return gop.sort()


def _changes_the_decoder(packet: VideoPacket) -> bool:
    """Whether it carries what the packets after it need, too."""
    return (
        packet.has_sidedata("new_extradata")
        or packet.has_sidedata("param_change")
        or packet.has_sidedata("palette")
    )
