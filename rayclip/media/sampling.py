"""Select the source frame for every output tick, in integer arithmetic.

The rule is that of ``ffmpeg -filter:v fps=N`` with its default rounding (nearest): every frame's
timestamp is rounded to a tick of the output rate, and a tick shows the last frame at or before it.
Nothing here knows about files, decoders or pixels.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

RULE_VERSION = 4
"""Recorded with every run; increased whenever the same video would yield different frames."""

MICROSECONDS = 1_000_000
MAX_FPS = 1000  # more is a mistake, and would repeat each frame countless times
MAX_DENOMINATOR = 1_001_000  # libavutil's av_parse_video_rate


def parse_fps(value: str | int | float | Fraction) -> Fraction:
    """Parse frames per second into an exact fraction, as ffmpeg does.

    Args:
        value: an integer, a decimal or a ratio such as ``"30000/1001"``.

    Raises:
        ValueError: not a number, not above zero, or above :data:`MAX_FPS`.
    """
    try:
        fps = Fraction(str(value)).limit_denominator(MAX_DENOMINATOR)
    except ZeroDivisionError:
        raise ValueError(f"{value} divides by zero") from None
    if not 0 < fps <= MAX_FPS:
        raise ValueError(f"a frame rate must be above zero and at most {MAX_FPS}, not {value}")
    return fps


def rescale_nearest(value: int, numerator: int, denominator: int) -> int:
    """``value * numerator / denominator`` to the nearest integer, halves away from zero.

    This is libavutil's ``av_rescale_rnd(..., AV_ROUND_NEAR_INF)``; the ratio must be positive.
    """
    rounded = (abs(value) * numerator * 2 + denominator) // (2 * denominator)
    return -rounded if value < 0 else rounded


@dataclass(frozen=True)
class FrameChoice:
    """Which frames of a video to select: all, this many per second, or this many in total.

    At most one of the attributes is set.

    Attributes:
        extraction_fps: frames per second of the output.
        extraction_total: total number of frames, evenly spaced.
    """

    extraction_fps: Fraction | None = None
    extraction_total: int | None = None


def evenly_spaced(frames: int, total: int) -> list[int]:
    """The numbers of ``total`` frames in the middles of equal parts of a video.

    Frame k is number ``floor((2k + 1) frames / (2 total))``; all frames if there are at most
    ``total``.
    """
    if frames <= total:
        return list(range(frames))
    return [(2 * k + 1) * frames // (2 * total) for k in range(total)]


class FrameRule(Protocol):
    """Determines at which output times a picture is shown.

    A rule is stateless, so a video may be split anywhere and processed part by part.
    """

    def timestamps_ms(self, number: int, pts: int, begin: int, end: int) -> tuple[float, ...]:
        """The output times that show this picture, in ms; none if it is skipped.

        Args:
            number: of the picture in presentation order, from 0.
            pts: its own time. This and the following are in units of the stream's time base.
            begin: when it appears on the screen; later than ``pts`` if timestamps went back.
            end: when the next picture replaces it.
        """
        ...


class EveryFrame:
    """Shows every picture, or those with given numbers, once and at its own time."""

    def __init__(
        self, time_base: Fraction, start_us: int, numbers: Container[int] | None = None
    ) -> None:
        self._ms_per_unit = time_base * 1000
        self._start_ms = Fraction(start_us, 1000)
        self._numbers = numbers

    def timestamps_ms(self, number: int, pts: int, begin: int, end: int) -> tuple[float, ...]:
        if self._numbers is not None and number not in self._numbers:
            return ()
        return (float(pts * self._ms_per_unit - self._start_ms),)


class TickGrid:
    """Shows at every tick of a rate the last picture whose rounded time is not later."""

    def __init__(self, time_base: Fraction, start_us: int, fps: Fraction) -> None:
        """Prepare the ticks for a stream.

        Args:
            time_base: seconds per unit of the stream's pts.
            start_us: the container's start (minimum over all its streams) in microseconds.
            fps: ticks per second.
        """
        self._offset = rescale_nearest(
            -start_us, time_base.denominator, MICROSECONDS * time_base.numerator
        )
        self._numerator = time_base.numerator * fps.numerator
        self._denominator = time_base.denominator * fps.denominator
        self._fps = fps

    def tick(self, pts: int) -> int:
        """The tick nearest to a pts, counted from the container's start."""
        return rescale_nearest(pts + self._offset, self._numerator, self._denominator)

    def timestamps_ms(self, number: int, pts: int, begin: int, end: int) -> tuple[float, ...]:
        return tuple(
            float(tick / self._fps * 1000) for tick in range(self.tick(begin), self.tick(end))
        )
