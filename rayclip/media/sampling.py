"""Select the source frame for every output time, in integer arithmetic.

The rule for a rate is that of ``ffmpeg -filter:v fps=N`` with its default rounding (nearest): every
frame's timestamp is rounded to a tick of the output rate, and a tick shows the last frame at or
before it. Nothing here knows about files, decoders or pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, Protocol

from rayclip.media.frame_choice import MICROSECONDS, FrameChoice, evenly_spaced

RULE_VERSION = 4
"""Recorded with every run; increased whenever the same video would yield different frames."""


def rescale_nearest(value: int, numerator: int, denominator: int) -> int:
    """``value * numerator / denominator`` to the nearest integer, halves away from zero.

    This is libavutil's ``av_rescale_rnd(..., AV_ROUND_NEAR_INF)``; the ratio must be positive.
    """
    rounded = (abs(value) * numerator * 2 + denominator) // (2 * denominator)
    return -rounded if value < 0 else rounded


@dataclass(frozen=True)
class Clock:
    """The clock of a presentation, which counts from its container's start.

    Attributes:
        time_base: seconds per unit of the stream's pts.
        start_us: the container's start (minimum over all its streams) in microseconds.
    """

    time_base: Fraction
    start_us: int

    def ms(self, pts: int) -> float:
        """The time of a pts in ms."""
        return float(pts * self.time_base * 1000 - Fraction(self.start_us, 1000))

    def pts_at(self, us: int) -> int:
        """The first pts whose time, to the nearest microsecond, is not before this one."""
        doubled = 2 * (us + self.start_us) - 1
        return -(
            (-doubled * self.time_base.denominator) // (2 * MICROSECONDS * self.time_base.numerator)
        )


class Span(NamedTuple):
    """A range of times, in units of the stream's time base.

    Attributes:
        first: its first pts; None for the beginning of the video.
        until: the first pts after it; None for the end.
        at_start: the last pts that is not after its start: what is on the screen at the start began
            then or before; None for the beginning.
    """

    first: int | None
    until: int | None
    at_start: int | None

    @classmethod
    def of(cls, choice: FrameChoice, clock: Clock) -> Span:
        """The range of a choice."""
        return cls(
            None if choice.start_us is None else clock.pts_at(choice.start_us),
            None if choice.end_us is None else clock.pts_at(choice.end_us),
            None if choice.start_us is None else clock.pts_at(choice.start_us + 1) - 1,
        )

    def is_before(self, pts: int) -> bool:
        """Whether a pts is before the range."""
        return self.first is not None and pts < self.first

    def is_after(self, pts: int) -> bool:
        """Whether a pts is after the range."""
        return self.until is not None and pts >= self.until

    def __contains__(self, pts: object) -> bool:
        assert isinstance(pts, int)
        return not self.is_before(pts) and not self.is_after(pts)


class Shown(NamedTuple):
    """A picture as it is shown. Times are in units of the stream's time base.

    Attributes:
        number: among the pictures from the range's start on, in presentation order, from 0;
            negative before.
        pts: its own time.
        begin: when it appears on the screen; later than ``pts`` if timestamps went back.
        end: when the next picture replaces it.
        is_keyframe: whether decoding can start at it.
    """

    number: int
    pts: int
    begin: int
    end: int
    is_keyframe: bool = False


class FrameRule(Protocol):
    """Determines at which output times a picture is shown.

    A rule is stateless, so a video may be split anywhere and processed part by part.
    """

    @property
    def span(self) -> Span:
        """The range outside of which nothing is shown."""
        ...

    def timestamps_ms(self, shown: Shown) -> tuple[float, ...]:
        """The output times that show this picture, in ms; none if it is skipped."""
        ...

    def stand_in_ms(self, shown: Shown) -> float | None:
        """The output time at which the first such picture is shown if no other is; None if this is
        no such picture."""
        ...


def frame_rule(choice: FrameChoice, clock: Clock, count: int | None = None) -> FrameRule:
    """The rule of a choice.

    Args:
        choice: which frames are wanted.
        clock: of the video.
        count: how many frames the range has; needed for ``total``.
    """
    if choice.fps is not None:
        return TickGrid(choice.fps, choice, clock)
    return OwnTimes(_selection(choice, count), choice, clock)


def _selection(choice: FrameChoice, count: int | None) -> Callable[[Shown], bool]:
    """Which of the pictures in the range are shown at their own time."""
    if choice.total is not None:
        assert count is not None
        numbers = frozenset(evenly_spaced(count, choice.total))
        return lambda shown: shown.number in numbers
    if choice.every is not None:
        every = choice.every
        return lambda shown: shown.number % every == 0
    if choice.keyframes:
        return lambda shown: shown.is_keyframe
    return lambda shown: True


class OwnTimes:
    """Shows the selected pictures of a range once, each at its own time."""

    def __init__(
        self, is_selected: Callable[[Shown], bool], choice: FrameChoice, clock: Clock
    ) -> None:
        self.span = Span.of(choice, clock)
        self._is_selected = is_selected
        self._clock = clock
        self._has_range = choice.has_range

    def timestamps_ms(self, shown: Shown) -> tuple[float, ...]:
        if shown.pts in self.span and self._is_selected(shown):
            return (self._clock.ms(shown.pts),)
        return ()

    def stand_in_ms(self, shown: Shown) -> float | None:
        return None if self._has_range else self._clock.ms(shown.pts)


class TickGrid:
    """Shows at every tick of a rate the last picture whose rounded time is not later.

    Ticks count from the start of the range, and all of them are before its end. A picture may have
    appeared before the range, but never after it.
    """

    def __init__(self, fps: Fraction, choice: FrameChoice, clock: Clock) -> None:
        self.span = Span.of(choice, clock)
        self._fps = fps
        self._first_us = choice.start_us or 0
        time_base = clock.time_base
        self._offset = rescale_nearest(
            -clock.start_us, time_base.denominator, MICROSECONDS * time_base.numerator
        )
        self._scale = fps.numerator * time_base.numerator * MICROSECONDS
        self._shift = fps.numerator * time_base.denominator * self._first_us
        self._denominator = fps.denominator * time_base.denominator * MICROSECONDS
        end_us = choice.end_us
        self._ticks = None if end_us is None else self._ticks_before(end_us)

    def _ticks_before(self, us: int) -> int:
        return -(
            (self._first_us - us) * self._fps.numerator // (MICROSECONDS * self._fps.denominator)
        )

    def tick(self, pts: int) -> int:
        """The tick nearest to a pts."""
        value = (pts + self._offset) * self._scale - self._shift
        return rescale_nearest(value, 1, self._denominator)

    def timestamps_ms(self, shown: Shown) -> tuple[float, ...]:
        if self.span.is_after(shown.begin):
            return ()
        first = self.tick(shown.begin)
        if self.span.first is not None:
            first = max(first, 0)
        last = self.tick(shown.end)
        if self._ticks is not None and self.span.is_after(shown.end):
            last = self._ticks
        start_ms = Fraction(self._first_us, 1000)
        return tuple(float(start_ms + tick / self._fps * 1000) for tick in range(first, last))

    def stand_in_ms(self, shown: Shown) -> float | None:
        at_start = self.span.at_start
        is_over = at_start is not None and shown.end <= at_start
        if is_over or self.span.is_after(shown.begin):
            return None
        return self._first_us / 1000
