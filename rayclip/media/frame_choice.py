"""Which frames of a video are wanted, and how rates and times are written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

MICROSECONDS = 1_000_000
MAX_FPS = 1000  # more is a mistake, and would repeat each frame countless times
MAX_DENOMINATOR = 1_001_000  # libavutil's av_parse_video_rate
MAX_SECONDS = 1e9  # 30 years; more is a mistake, and microseconds of it stay exact


@dataclass(frozen=True)
class FrameChoice:
    """Which frames of a video to select: every frame, or by one of the first four attributes.

    Seconds count from the container's start, in whole microseconds.

    Attributes:
        fps: frames per second of the output; each tick shows the frame on the screen.
        total: this many frames, evenly spaced.
        every: each frame of this many, starting with the first.
        keyframes: only those at which decoding can start.
        start: seconds from which frames are selected; None for the beginning.
        end: seconds before which they are; None for the end.
    """

    fps: Fraction | None = None
    total: int | None = None
    every: int | None = None
    keyframes: bool = False
    start: float | None = None
    end: float | None = None

    @property
    def is_every_frame(self) -> bool:
        """Whether no frame of the range is left out."""
        return self.fps is None and not self.is_numbered and not self.keyframes

    @property
    def is_numbered(self) -> bool:
        """Whether a frame's number in the range decides, so that all before it must be counted."""
        return self.total is not None or self.every is not None

    @property
    def has_range(self) -> bool:
        """Whether ``start`` or ``end`` is given."""
        return self.start is not None or self.end is not None

    @property
    def is_reversed(self) -> bool:
        """Whether the range ends at or before its start."""
        return self.end is not None and self.end <= (self.start or 0.0)

    @property
    def start_us(self) -> int | None:
        """``start`` in microseconds."""
        return None if self.start is None else round(self.start * MICROSECONDS)

    @property
    def end_us(self) -> int | None:
        """``end`` in microseconds."""
        return None if self.end is None else round(self.end * MICROSECONDS)

    def span_s(self, duration_s: float) -> tuple[float, float]:
        """The seconds at which the range begins and ends in a video of this duration."""
        end = duration_s if self.end is None else min(self.end, duration_s)
        start = self.start or 0.0
        return start, max(start, end)

    def range_words(self) -> str:
        """The range for messages, such as ``from 5 s to 6.5 s``."""
        end = "the end" if self.end is None else f"{seconds_text(self.end)} s"
        return f"from {seconds_text(self.start or 0.0)} s to {end}"


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


def parse_seconds(value: str | int | float) -> float:
    """Parse a time in seconds, rounded to microseconds.

    Raises:
        ValueError: not a number, below zero, or above :data:`MAX_SECONDS`.
    """
    seconds = float(value)
    if math.isnan(seconds) or not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(f"a time must be a number of seconds from 0 on, not {value}")
    return round(seconds, 6)


def seconds_text(seconds: float) -> str:
    """The shortest decimal of a time, such as ``12.5``."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def evenly_spaced(frames: int, total: int) -> list[int]:
    """The numbers of ``total`` frames in the middles of equal parts of a video.

    Frame k is number ``floor((2k + 1) frames / (2 total))``; all frames if there are at most
    ``total``.
    """
    if frames <= total:
        return list(range(frames))
    return [(2 * k + 1) * frames // (2 * total) for k in range(total)]
