"""Which source frame every output tick shows, in integers.

The rule is that of ``ffmpeg -filter:v fps=N`` with its default rounding (nearest): every frame's
timestamp is rounded to a tick of the output rate, and a tick shows the last frame at or before it.
Nothing here knows about files, decoders or pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, TypeVar

RULE_VERSION = 1
"""Recorded with every run; raised whenever the same video would give other frames."""

MICROSECONDS = 1_000_000
LARGEST_FPS = 1000  # more is a mistake, and would repeat each frame without end
LARGEST_DENOMINATOR = 1_001_000  # libavutil's av_parse_video_rate


def parse_fps(value: str | int | float | Fraction) -> Fraction:
    """Frames per second as an exact fraction, as ffmpeg reads it.

    Args:
        value: an integer, a decimal or a ratio such as ``"30000/1001"``.

    Raises:
        ValueError: it is not a number, not above zero, or above :data:`LARGEST_FPS`.
    """
    try:
        fps = Fraction(str(value)).limit_denominator(LARGEST_DENOMINATOR)
    except ZeroDivisionError:
        raise ValueError(f"{value} divides by zero") from None
    if not 0 < fps <= LARGEST_FPS:
        raise ValueError(f"a frame rate must be above zero and at most {LARGEST_FPS}, not {value}")
    return fps


def rescale_nearest(value: int, numerator: int, denominator: int) -> int:
    """``value * numerator / denominator`` to the nearest integer, halves away from zero.

    This is libavutil's ``av_rescale_rnd(..., AV_ROUND_NEAR_INF)``; the ratio must be positive.
    """
    rounded = (abs(value) * numerator * 2 + denominator) // (2 * denominator)
    return -rounded if value < 0 else rounded


class Timed(Protocol):
    """A frame with its place in time, in units of the stream's time base."""

    @property
    def pts(self) -> int: ...

    @property
    def duration(self) -> int: ...


@dataclass(frozen=True)
class FrameChoice:
    """Which frames of a video are wanted: all, some each second, or some in all.

    Attributes:
        extraction_fps: frames per second of the output.
        extraction_total: so many frames, evenly spaced; at most one of the two is given.
    """

    extraction_fps: Fraction | None = None
    extraction_total: int | None = None


def evenly_spaced(frames: int, total: int) -> list[int]:
    """The numbers of ``total`` frames in the middles of equal parts of a video.

    Frame k is number ``floor((2k + 1) frames / (2 total))``; all of them where there are no more.
    """
    if frames <= total:
        return list(range(frames))
    return [(2 * k + 1) * frames // (2 * total) for k in range(total)]


FrameT = TypeVar("FrameT", bound=Timed)


@dataclass(frozen=True)
class TickGrid:
    """The ticks of one output rate over one stream.

    Attributes:
        time_base: seconds per unit of the stream's pts.
        fps: ticks per second.
        start_us: the container's start (minimum over all its streams) in microseconds.
    """

    time_base: Fraction
    fps: Fraction
    start_us: int

    def tick(self, pts: int) -> int:
        """The tick nearest to a pts, counted from the container's start."""
        offset = rescale_nearest(
            -self.start_us, self.time_base.denominator, MICROSECONDS * self.time_base.numerator
        )
        return rescale_nearest(
            pts + offset,
            self.time_base.numerator * self.fps.numerator,
            self.time_base.denominator * self.fps.denominator,
        )

    def milliseconds(self, tick: int) -> float:
        """The time of a tick in ms."""
        return float(tick / self.fps * 1000)


def shown_ticks(frames: Iterable[FrameT], grid: TickGrid) -> Iterator[tuple[FrameT, range]]:
    """Pair each frame that is shown with the consecutive ticks that show it.

    Args:
        frames: in presentation order. Held one at a time (two before the first tick), so any
            length goes.
        grid: the output ticks.

    Yields:
        ``(frame, ticks)`` with at least one tick each; over the whole stream the ticks are
        consecutive. A stream too short to hit any tick gives its first frame at tick 0.
    """
    first = previous = None
    next_tick = 0
    gap = 0
    for frame in frames:
        tick = grid.tick(frame.pts)
        if previous is None:
            first, next_tick = frame, tick
        else:
            gap = max(frame.pts - previous.pts, 0)
            if tick > next_tick:
                yield previous, range(next_tick, tick)
                first, next_tick = None, tick
        previous = frame
    if previous is None:
        return
    end = grid.tick(previous.pts + (previous.duration or gap or 1))
    if end > next_tick:
        yield previous, range(next_tick, end)
    elif first is not None:
        yield first, range(1)
