"""Decode only what wanted pictures need.

Which pictures are wanted is told from packets alone, group by group; then the decoder gets those
packets that the wanted ones need. Whatever does not go by the plan raises ``Irregular``, and
everything from there on is for :mod:`rayclip.media.decoding`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import av
from av.video.codeccontext import VideoCodecContext

from rayclip.media.decoding import SelectedFrame
from rayclip.media.gop import MAX_GOP_BYTES, DamagedStream, Gop, GopReader, Irregular, Picture
from rayclip.media.keyframes import VideoPacket, may_split_pictures
from rayclip.media.sampling import FrameRule
from rayclip.media.timestamps import shown_for
from rayclip.media.watchdog import LIBAV

Skip = Literal["DEFAULT", "NONREF"]

MAX_GOPS = 4  # that are held while the decoder works as it should
SKIP_PICTURE_BY_PICTURE = ("h264", "hevc")  # libdav1d and others lose wanted pictures


@dataclass(frozen=True)
class _Wanted:
    pts: int
    number: int
    timestamps_ms: tuple[float, ...]


class PlannedDecoder:
    """Reads a stream once and forward, and decodes what wanted pictures need.

    A *scene* is what is shown from one entry point to the next: the trailing pictures of a group
    and the leading ones of the following. Each is picked as a whole before any of it is decoded.
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
            codec: opened for the stream, and never fed before.
            groups: the stream.
            rule: which pictures are shown, and when.
            since: pts of the first group, where the stream is read from its middle on.
            until: pts of the entry point at which to end.
        """
        self._codec = codec
        self._gops = gops
        self._rule = rule
        self._since = since
        self._until = until
        self._number = 0  # of the next picture to be picked
        self._last_pts: int | None = None  # of the last that was
        self._picked_until = since  # scenes before this pts are picked
        self._wanted: deque[_Wanted] = deque()  # picked, and not yet given out
        self._decoded: deque[av.VideoFrame] = deque()  # and not yet looked at
        self._held: deque[Gop] = deque()  # what decoding everything would have to begin with
        self._is_running = False  # whether the decoder has got packets,
        self._fed_gop: Gop | None = None  # in which group it is,
        self._fed = 0  # how many of its packets it has got,
        self._exact_from = 0  # and pts of the entry point where it began
        self._skips = codec.name in SKIP_PICTURE_BY_PICTURE
        self._fields_apart = may_split_pictures(codec)

    @property
    def number(self) -> int:
        """The number of the first picture that was not given out."""
        return self._wanted[0].number if self._wanted else self._number

    @property
    def resume(self) -> int | None:
        """From which pts on nothing was given out; None before the first scene."""
        return self._wanted[0].pts if self._wanted else self._picked_until

    def rest(self) -> Iterator[VideoPacket]:
        """All packets that are needed to decode from ``resume`` on; makes the decoder ready."""
        if self._is_running:
            self._codec.flush_buffers()
        self._codec.skip_frame = "DEFAULT"
        for gop in self._held:
            yield from gop.packets
        yield from self._gops.rest()

    def selected_frames(self) -> Iterator[SelectedFrame]:
        """The frames that are shown, and in any case the first one.

        Raises:
            Irregular: the packets cannot be trusted.
        """
        gops = iter(self._gops)
        gop = next(gops, None)
        if gop is not None:
            self._held.append(gop)
            if gop.leading and self._since is None:
                raise Irregular("the first pictures need others that are not there")
        while gop is not None and (self._until is None or gop.start < self._until):
            following = next(gops, None)
            if following is not None:
                self._held.append(following)
            yield from self._scene(gop, following)
            self._let_go()
            gop = following
        if self._until is not None and (gop is None or gop.start != self._until):
            raise Irregular("there is no entry point where the segment should end")
        yield from self._finish()
        if self._wanted:
            raise DamagedStream("a wanted picture did not come out of the decoder")

    def _scene(self, gop: Gop, following: Gop | None) -> Iterator[SelectedFrame]:
        here, ahead = self._pick(gop, following)
        yield from self._matching()
        if not here and not ahead:
            yield from self._finish()
            if self._wanted:
                raise DamagedStream("a wanted picture did not come out of the decoder")
            return
        if self._fed_gop is not gop:
            yield from self._finish()
            self._is_running = True
            self._fed_gop, self._fed, self._exact_from = gop, 0, gop.start
        yield from self._feed(len(gop.packets) if ahead else max(here) + 1, here)
        if self._fed == len(gop.packets):
            self._fed_gop, self._fed = following, 0
            yield from self._feed(max(ahead) + 1 if ahead else 0, {0, *ahead})

    def _pick(self, gop: Gop, following: Gop | None) -> tuple[set[int], set[int]]:
        """Note which pictures of a scene are wanted, and when; tell their places in both groups."""
        scene = [(picture, False) for picture in gop.trailing]
        if following is not None:
            scene += [(picture, True) for picture in following.leading]
            scene.sort(key=lambda entry: entry[0].pts)
        ends = self._ends([picture for picture, _ in scene], gop, following)
        places: tuple[set[int], set[int]] = (set(), set())
        for (picture, is_ahead), end in zip(scene, ends, strict=True):
            times = self._rule.timestamps_ms(self._number, picture.pts, picture.pts, end)
            if times or self._number == 0:
                self._wanted.append(_Wanted(picture.pts, self._number, times))
                places[is_ahead].add(picture.place)
            self._number += 1
        if ends:
            self._last_pts = scene[-1][0].pts
            self._picked_until = self._last_pts + 1
        if following is not None:
            self._picked_until = following.start
        return places

    def _ends(self, scene: list[Picture], gop: Gop, following: Gop | None) -> list[int]:
        """When each picture of a scene gives way to the next."""
        times = [picture.pts for picture in scene]
        if following is not None:
            end = following.start
        elif scene:
            before = times[-2] if len(times) > 1 else self._last_pts
            gap = times[-1] - before if before is not None else 0
            end = times[-1] + shown_for(scene[-1].duration, gap)
        else:
            return []
        times = [gop.start - 1, *times, end]
        if any(second <= first for first, second in pairwise(times)):
            raise Irregular("the pictures of a group are not shown together")
        return times[2:]

    def _feed(self, end: int, wanted: set[int]) -> Iterator[SelectedFrame]:
        """Give the decoder the packets of its group up to this place, and match what it gives."""
        for place in range(self._fed, end):
            assert self._fed_gop is not None
            discard: Skip = "NONREF" if self._skips and place not in wanted else "DEFAULT"
            if self._codec.skip_frame != discard:
                self._codec.skip_frame = discard
            self._decode(self._fed_gop.packets[place])
            yield from self._matching()
        self._fed = max(end, self._fed)

    def _finish(self) -> Iterator[SelectedFrame]:
        """Get out of the decoder what is in it, and have it begin anew."""
        if self._is_running:
            self._decode(None)
            yield from self._matching()
            self._codec.flush_buffers()
            self._decoded.clear()
            self._is_running, self._fed_gop, self._fed = False, None, 0

    def _decode(self, packet: VideoPacket | None) -> None:
        try:
            with LIBAV:
                self._decoded.extend(self._codec.decode(packet))
        except av.FFmpegError as error:
            raise DamagedStream("a packet does not decode") from error

    def _matching(self) -> Iterator[SelectedFrame]:
        """Give out the wanted ones of the decoded frames, as far as scenes are picked."""
        while self._decoded:
            frame = self._decoded[0]
            if frame.pts is None:
                raise Irregular("a decoded frame has no time")
            if self._picked_until is None or frame.pts >= self._picked_until:
                return
            self._decoded.popleft()
            if frame.is_corrupt and frame.pts >= self._exact_from:
                raise DamagedStream("a picture is damaged")
            if not self._wanted or frame.pts < self._wanted[0].pts:
                continue
            if frame.pts > self._wanted[0].pts:
                raise DamagedStream("a wanted picture did not come out of the decoder")
            if frame.interlaced_frame and self._fields_apart:
                raise Irregular("a picture may lack its second field")
            yield SelectedFrame(frame, self._wanted.popleft().timestamps_ms)

    def _let_go(self) -> None:
        """Drop what is not needed again: what comes after ``resume`` is, and the frame before."""
        while len(self._held) > 1 and self.resume is not None and self._held[1].start < self.resume:
            self._held.popleft()
        if len(self._held) > MAX_GOPS and sum(g.size for g in self._held) > MAX_GOP_BYTES:
            raise Irregular("the decoder takes packets and gives no pictures")
