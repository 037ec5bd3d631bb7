"""Decode only what wanted pictures need.

Packets alone determine which pictures are wanted, one GOP at a time. The decoder is then fed only
the packets that these need. Anything unexpected raises ``Irregular``; the caller then continues
with :mod:`rayclip.media.decoding`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import av
from av.video.codeccontext import VideoCodecContext

from rayclip.media.decoding import BEFORE_START, SelectedFrame
from rayclip.media.gop import MAX_GOP_BYTES, DamagedStream, Gop, GopReader, Irregular, Picture
from rayclip.media.keyframes import VideoPacket, may_split_pictures
from rayclip.media.sampling import FrameRule, Shown
from rayclip.media.timestamps import display_duration
from rayclip.media.watchdog import LIBAV

Skip = Literal["DEFAULT", "NONREF"]

MAX_GOPS = 4  # held at once by a decoder that works properly
CAN_SKIP_PICTURES = ("h264", "hevc")  # libdav1d and others lose wanted pictures


@dataclass(frozen=True)
class _Wanted:
    """A picture to decode.

    Attributes:
        pts: its own time.
        is_first: whether it is the first of all planned pictures.
        timestamps_ms: the output times that show it.
        stand_in_ms: see :class:`SelectedFrame`.
    """

    pts: int
    is_first: bool
    timestamps_ms: tuple[float, ...]
    stand_in_ms: float | None


class PlannedDecoder:
    """Reads a stream once, forward, and decodes what wanted pictures need.

    A *scene* is what is shown from one random access point to the next: the trailing pictures of a
    GOP and the leading ones of the next. A scene is planned as a whole before it is decoded.
    """

    def __init__(
        self,
        codec: VideoCodecContext,
        gops: GopReader,
        rule: FrameRule,
        *,
        since: int | None = None,
        until: int | None = None,
    ) -> None:
        """Prepare to decode.

        Args:
            codec: opened for the stream, and not fed yet.
            gops: the stream.
            rule: which pictures are shown, and when.
            since: pts of the first GOP if the stream is read from its middle.
            until: pts of the random access point at which to end.
        """
        self._codec = codec
        self._gops = gops
        self._rule = rule
        self._since = since
        self._until = until
        self._number = 0  # of the next picture in the range
        self._finds_stand_in = True  # until a picture is wanted
        self._last_pts: int | None = None  # of the last planned picture
        self._planned_until = since  # scenes before this pts are planned
        self._wanted: deque[_Wanted] = deque()  # planned, not yielded yet
        self._decoded: deque[av.VideoFrame] = deque()  # not matched yet
        self._held: deque[Gop] = deque()  # needed if everything has to be decoded after all
        self._is_running = False  # whether the decoder was fed since its last flush
        self._fed_gop: Gop | None = None  # the GOP that it is being fed
        self._fed = 0  # how many packets of that GOP it was fed
        self._exact_from = 0  # pts of the random access point where it started
        self._can_skip = codec.name in CAN_SKIP_PICTURES
        self._may_split_pictures = may_split_pictures(codec)

    @property
    def resume_pts(self) -> int | None:
        """The pts from which everything is still pending; None if nothing was planned before."""
        if self._wanted:
            return None if self._wanted[0].is_first else self._wanted[0].pts
        return self._planned_until

    def remaining_packets(self) -> Iterator[VideoPacket]:
        """Flush the decoder and yield all packets needed to decode from ``resume_pts`` on."""
        if self._is_running:
            self._codec.flush_buffers()
        self._codec.skip_frame = "DEFAULT"
        for gop in self._held:
            yield from gop.packets
        yield from self._gops.remaining_packets()

    def selected_frames(self) -> Iterator[SelectedFrame]:
        """Yield the frames that are shown, and the first that may stand in for them.

        Raises:
            Irregular: the packets cannot be trusted.
        """
        gops = iter(self._gops)
        gop = next(gops, None)
        if gop is not None:
            self._held.append(gop)
            if gop.leading and self._since is None:
                raise Irregular("the first pictures need missing pictures before them")
        span = self._rule.span
        while gop is not None and not span.is_after(gop.start):
            if self._until is not None and gop.start >= self._until:
                break
            following = next(gops, None)
            if following is not None:
                self._held.append(following)
            yield from self._decode_scene(gop, following)
            self._release_gops()
            gop = following
        is_over = gop is not None and span.is_after(gop.start)
        if self._until is not None and not is_over and (gop is None or gop.start != self._until):
            raise Irregular("there is no random access point where the segment should end")
        yield from self._drain()
        if self._wanted:
            raise DamagedStream("the decoder did not return a wanted picture")

    def _decode_scene(self, gop: Gop, following: Gop | None) -> Iterator[SelectedFrame]:
        here, ahead = self._pick_wanted(gop, following)
        yield from self._take_wanted()
        if not here and not ahead:
            yield from self._drain()
            if self._wanted:
                raise DamagedStream("the decoder did not return a wanted picture")
            return
        if self._fed_gop is not gop:
            yield from self._drain()
            self._is_running = True
            self._fed_gop, self._fed, self._exact_from = gop, 0, gop.start
        yield from self._feed(len(gop.packets) if ahead else max(here) + 1, here)
        if self._fed == len(gop.packets):
            self._fed_gop, self._fed = following, 0
            yield from self._feed(max(ahead) + 1 if ahead else 0, {0, *ahead})

    def _pick_wanted(self, gop: Gop, following: Gop | None) -> tuple[set[int], set[int]]:
        """Plan which pictures of a scene are wanted; return their positions in both GOPs."""
        scene = [(picture, False) for picture in gop.trailing]
        if following is not None:
            scene += [(picture, True) for picture in following.leading]
            scene.sort(key=lambda entry: entry[0].pts)
        ends = self._end_times([picture for picture, _ in scene], gop, following)
        positions: tuple[set[int], set[int]] = (set(), set())
        for (picture, is_ahead), end in zip(scene, ends, strict=True):
            shown = self._shown(picture, end, is_keyframe=not is_ahead and picture.position == 0)
            times = self._rule.timestamps_ms(shown)
            stand_in_ms = self._rule.stand_in_ms(shown) if self._finds_stand_in else None
            if times or stand_in_ms is not None:
                is_first = self._last_pts is None
                self._wanted.append(_Wanted(picture.pts, is_first, times, stand_in_ms))
                positions[is_ahead].add(picture.position)
                self._finds_stand_in = False
            self._last_pts = picture.pts
        if ends:
            self._planned_until = scene[-1][0].pts + 1
        if following is not None:
            self._planned_until = following.start
        return positions

    def _shown(self, picture: Picture, end: int, is_keyframe: bool) -> Shown:
        number = BEFORE_START
        if not self._rule.span.is_before(picture.pts):
            number, self._number = self._number, self._number + 1
        return Shown(number, picture.pts, picture.pts, end, is_keyframe)

    def _end_times(self, scene: list[Picture], gop: Gop, following: Gop | None) -> list[int]:
        """The pts at which each picture of a scene is replaced by the next."""
        times = [picture.pts for picture in scene]
        if following is not None:
            end = following.start
        elif scene:
            before = times[-2] if len(times) > 1 else self._last_pts
            gap = times[-1] - before if before is not None else 0
            end = times[-1] + display_duration(scene[-1].duration, gap)
        else:
            return []
        times = [gop.start - 1, *times, end]
        if any(second <= first for first, second in pairwise(times)):
            raise Irregular("the pictures of a GOP are not shown together")
        return times[2:]

    def _feed(self, end: int, wanted: set[int]) -> Iterator[SelectedFrame]:
        """Feed the decoder its GOP's packets before ``end``, and yield the wanted frames."""
        for position in range(self._fed, end):
            assert self._fed_gop is not None
            discard: Skip = "NONREF" if self._can_skip and position not in wanted else "DEFAULT"
            if self._codec.skip_frame != discard:
                self._codec.skip_frame = discard
            self._decode(self._fed_gop.packets[position])
            yield from self._take_wanted()
        self._fed = max(end, self._fed)

    def _drain(self) -> Iterator[SelectedFrame]:
        """Yield the wanted frames that remain in the decoder, then reset it."""
        if self._is_running:
            self._decode(None)
            yield from self._take_wanted()
            self._codec.flush_buffers()
            self._decoded.clear()
            self._is_running, self._fed_gop, self._fed = False, None, 0

    def _decode(self, packet: VideoPacket | None) -> None:
        try:
            with LIBAV:
                self._decoded.extend(self._codec.decode(packet))
        except av.FFmpegError as error:
            raise DamagedStream("a packet does not decode") from error

    def _take_wanted(self) -> Iterator[SelectedFrame]:
        """Yield the wanted frames among those decoded, as far as scenes are planned."""
        while self._decoded:
            frame = self._decoded[0]
            if frame.pts is None:
                raise Irregular("a decoded frame has no time")
            if self._planned_until is None or frame.pts >= self._planned_until:
                return
            self._decoded.popleft()
            if frame.is_corrupt and frame.pts >= self._exact_from:
                raise DamagedStream("a picture is damaged")
            if not self._wanted or frame.pts < self._wanted[0].pts:
                continue
            if frame.pts > self._wanted[0].pts:
                raise DamagedStream("the decoder did not return a wanted picture")
            if frame.interlaced_frame and self._may_split_pictures:
                raise Irregular("a picture may lack its second field")
            wanted = self._wanted.popleft()
            yield SelectedFrame(frame, wanted.timestamps_ms, wanted.stand_in_ms)

    def _release_gops(self) -> None:
        """Drop the GOPs that are not needed to decode from the frame before ``resume_pts``."""
        resume_pts = self.resume_pts
        while len(self._held) > 1 and resume_pts is not None and self._held[1].start < resume_pts:
            self._held.popleft()
        if len(self._held) > MAX_GOPS and sum(gop.size for gop in self._held) > MAX_GOP_BYTES:
            raise Irregular("the decoder accepts packets but returns no pictures")
