"""Decode every frame and select those that the output shows.

This is the slow path. :mod:`rayclip.media.planning` decodes only what is needed, but must be able
to trust the packets' times.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

from rayclip.media.keyframes import VideoPacket
from rayclip.media.orientation import upright_rgb
from rayclip.media.sampling import FrameRule, Shown
from rayclip.media.timestamps import BestEffortTimestamp, display_duration
from rayclip.media.watchdog import LIBAV

MAX_FRUITLESS_ERRORS = 1000  # before the first frame; with more, the video is not decodable
BEFORE_START = -1  # the number of a picture before the range


@dataclass(frozen=True)
class SelectedFrame:
    """A source frame and every time at which the output shows it.

    Attributes:
        frame: the decoded frame.
        timestamps_ms: one entry per output frame: several if the frame is repeated, none if the
            output does not show it.
        stand_in_ms: the time at which to show it if the output shows no frame at all; None if it
            cannot stand in.
    """

    frame: av.VideoFrame
    timestamps_ms: tuple[float, ...]
    stand_in_ms: float | None = None

    def rgb(self) -> NDArray[np.uint8]:
        """Convert to upright pixels: uint8 ``[height, width, 3]``, with any strides.

        Raises:
            BadVideo: the pixel format cannot be converted (stage ``decode``).
        """
        return upright_rgb(self.frame)


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame with its best-effort timestamp, in the stream's time base."""

    pts: int
    duration: int
    frame: av.VideoFrame
    is_keyframe: bool = False


def decode_all(codec: VideoCodecContext, packets: Iterable[VideoPacket]) -> Iterator[av.VideoFrame]:
    """Yield every frame that decodes; damaged packets are skipped, as in ffmpeg."""
    decoded = errors = 0
    for packet in chain(packets, [None]):
        try:
            with LIBAV:
                frames = codec.decode(packet)
        except av.FFmpegError:
            errors += 1
            if errors > MAX_FRUITLESS_ERRORS and not decoded:
                return
            continue
        decoded += len(frames)
        yield from frames


def timed_frames(
    frames: Iterable[av.VideoFrame], time_base: Fraction, rate: Fraction
) -> Iterator[TimedFrame]:
    """Pair frames with their times; missing times are extrapolated from the frame rate."""
    guess = BestEffortTimestamp()
    frame_duration = max(1, round(1 / rate / time_base))
    last: int | None = None
    following = 0
    for frame in frames:
        pts = guess.update(frame.pts, frame.dts)
        if pts is None:  # raw streams have no times
            pts = following
        duration = frame.duration or 0
        step = 0 if last is None else max(pts - last, 0)
        following = pts + (display_duration(duration, step) if duration else frame_duration)
        last = pts
        yield TimedFrame(pts, duration, frame, frame.key_frame)


def selected_frames(
    frames: Iterable[TimedFrame], rule: FrameRule, *, since: int | None = None
) -> Iterator[SelectedFrame]:
    """Pair decoded frames with the times at which the output shows them.

    Args:
        frames: in presentation order. Only one is held at a time.
        rule: which frames are shown, and when.
        since: pts from which ticks are produced; earlier ones were produced before. The frame
            before it may still be on the screen then. If that frame is missing, the next one
            replaces it.

    Yields:
        Every frame before the end of the rule's range.
    """
    previous: TimedFrame | None = None
    number, numbered = 0, BEFORE_START
    begin = gap = 0
    horizon = since
    end = None

    def selected(last: TimedFrame, end: int) -> SelectedFrame:
        shown = Shown(numbered, last.pts, begin, max(begin, end), last.is_keyframe)
        return SelectedFrame(last.frame, rule.timestamps_ms(shown), rule.stand_in_ms(shown))

    for frame in frames:
        if rule.span.is_after(frame.pts):
            end = frame.pts
            break
        horizon = frame.pts if horizon is None else max(frame.pts, horizon)
        if previous is not None:
            yield selected(previous, horizon)
            gap = max(frame.pts - previous.pts, 0)
        if not rule.span.is_before(frame.pts):
            numbered, number = number, number + 1
        begin = since if previous is None and since is not None else horizon
        previous = frame
    if previous is not None:
        if end is None:
            end = previous.pts + display_duration(previous.duration, gap)
        yield selected(previous, end)
