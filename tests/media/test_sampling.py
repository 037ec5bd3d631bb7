"""Which source frame every output tick shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclip.media.decoding import SelectedFrame, TimedFrame, selected_frames
from rayclip.media.frame_choice import FrameChoice, parse_fps
from rayclip.media.sampling import (
    Clock,
    Shown,
    TickGrid,
    frame_rule,
    rescale_nearest,
)

MS = Fraction(1, 1000)


def frame(pts: int, duration: int = 0, name: Any = None) -> TimedFrame:
    """A frame whose picture is its name, by default its pts."""
    picture: Any = pts if name is None else name
    return TimedFrame(pts, duration, picture)


def ticks_of(shown: Iterator[SelectedFrame], fps: Fraction) -> list[tuple[int, Any]]:
    """Every tick with the picture that it shows, in order."""
    return [(round(ms * fps / 1000), one.frame) for one in shown for ms in one.timestamps_ms]


def grid_of(fps: Fraction | int, start_us: int = 0, time_base: Fraction = MS) -> TickGrid:
    return TickGrid(Fraction(fps), FrameChoice(), Clock(time_base, start_us))


def shown(
    pts: Sequence[int], fps: Fraction | int, *, duration: int = 0, start_us: int = 0
) -> dict[int, int]:
    """Tick -> pts of the frame that it shows, for pts in ms."""
    fps = Fraction(fps)
    grid = grid_of(fps, start_us)
    return dict(ticks_of(selected_frames([frame(one, duration) for one in pts], grid), fps))


# ---- frame rates ----


@pytest.mark.parametrize(
    ("value", "fps"),
    [
        (5, Fraction(5)),
        ("5", Fraction(5)),
        (2.5, Fraction(5, 2)),
        ("2.5", Fraction(5, 2)),
        (0.1, Fraction(1, 10)),
        ("30000/1001", Fraction(30_000, 1001)),
        (Fraction(30_000, 1001), Fraction(30_000, 1001)),
        (23.976, Fraction(2997, 125)),
        (1 / 3, Fraction(1, 3)),
    ],
)
def test_a_frame_rate_is_an_exact_fraction(
    value: str | int | float | Fraction, fps: Fraction
) -> None:
    assert parse_fps(value) == fps


def test_a_frame_rate_has_a_denominator_of_at_most_1001000() -> None:
    assert parse_fps("0.12345678901234567").denominator <= 1_001_000


@pytest.mark.parametrize("value", [0, -1, "0", "-5", "0/7", "", "fast", "nan", "inf", "5 fps"])
def test_an_invalid_frame_rate_is_a_value_error(value: str | int) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_fps(value)


def test_a_frame_rate_that_divides_by_zero_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_fps("25/0")


# ---- rounding ----


@pytest.mark.parametrize(
    ("value", "numerator", "denominator", "rounded"),
    [
        (0, 1, 2, 0),
        (1, 1, 2, 1),  # 0.5
        (3, 1, 2, 2),  # 1.5
        (5, 1, 2, 3),  # 2.5: to even would be 2
        (-1, 1, 2, -1),
        (-3, 1, 2, -2),
        (-5, 1, 2, -3),
        (1, 1, 3, 0),
        (2, 1, 3, 1),
        (-1, 1, 3, 0),
        (-2, 1, 3, -1),
        (7, 3, 1, 21),
        (-7, 3, 1, -21),
        (2**62 + 1, 1, 2, 2**61 + 1),  # beyond the exact integers of a float
    ],
)
def test_halves_are_rounded_away_from_zero(
    value: int, numerator: int, denominator: int, rounded: int
) -> None:
    assert rescale_nearest(value, numerator, denominator) == rounded


# ---- the grid ----


@pytest.mark.parametrize(
    ("pts", "tick"),
    [(0, 0), (99, 0), (100, 1), (299, 1), (300, 2), (1000, 5), (-99, 0), (-100, -1)],
)
def test_a_pts_belongs_to_its_nearest_tick(pts: int, tick: int) -> None:
    assert grid_of(5).tick(pts) == tick


def test_ticks_count_from_the_start_of_the_container() -> None:
    grid = grid_of(10, 1_400_000)
    assert [grid.tick(pts) for pts in (1400, 1500, 2400)] == [0, 1, 10]


def test_a_negative_start_moves_frames_later() -> None:
    assert grid_of(10, -200_000).tick(0) == 2


def test_the_start_is_rounded_to_the_time_base_before_it_is_subtracted() -> None:
    coarse = grid_of(1000, 149_999, Fraction(1, 10))
    assert coarse.tick(3) == 200  # 3 - 1 tenths of a second, not 150.001 ms


@pytest.mark.parametrize(
    ("fps", "tick", "milliseconds"),
    [(Fraction(5), 3, 600.0), (Fraction(30_000, 1001), 30_000, 1_001_000.0), (Fraction(5), 0, 0.0)],
)
def test_the_time_of_a_tick_is_exact(fps: Fraction, tick: int, milliseconds: float) -> None:
    pts = round(tick / fps * 1000)
    until = round((tick + 1) / fps * 1000)
    assert grid_of(fps).timestamps_ms(Shown(0, pts, pts, until)) == (milliseconds,)


# ---- what is shown ----


def test_a_tick_shows_the_last_frame_at_or_before_it() -> None:
    assert shown([0, 100, 200, 300, 400, 500], 5, duration=100) == {0: 0, 1: 200, 2: 400}


def test_a_frame_is_repeated_until_the_next_if_ticks_are_denser() -> None:
    assert shown([0, 500], 4, duration=500) == {0: 0, 1: 0, 2: 500, 3: 500}


def test_at_its_own_rate_every_frame_is_shown_once() -> None:
    pts = [0, 40, 80, 120, 160]
    assert shown(pts, 25, duration=40) == dict(enumerate(pts))


def test_frames_at_uneven_times_are_shown_until_the_next() -> None:
    pts = [0, 100, 150, 900, 1000]
    assert shown(pts, 5, duration=100) == {0: 0, 1: 150, 2: 150, 3: 150, 4: 150, 5: 1000}


def test_the_last_of_several_frames_at_one_tick_is_shown() -> None:
    assert shown([0, 10, 20, 1000, 1010], 1, duration=500) == {0: 20, 1: 1010}


def test_two_frames_of_the_same_pts_count_as_the_later_one() -> None:
    frames = [frame(0, 100, "a"), frame(1000, 1000, "b"), frame(1000, 1000, "c")]
    given = list(selected_frames(frames, grid_of(1)))
    assert [(one.frame, one.timestamps_ms) for one in given] == [
        ("a", (0.0,)),
        ("b", ()),
        ("c", (1000.0,)),
    ]


def test_video_that_starts_after_its_sound_has_no_tick_before_its_first_frame() -> None:
    assert list(shown([2000, 2500, 3000], 2, duration=500)) == [4, 5, 6]


def test_ticks_start_at_zero_if_container_and_video_start_late() -> None:
    pts = [2000, 2500, 3000]
    assert list(shown(pts, 2, duration=500, start_us=2_000_000)) == [0, 1, 2]


def test_the_last_frame_is_shown_for_its_duration() -> None:
    assert list(shown([0, 100], 10, duration=500)) == [0, 1, 2, 3, 4, 5]


def test_a_larger_gap_overrides_a_last_duration_of_one_unit() -> None:
    assert list(shown([0, 100], 10, duration=1)) == [0, 1]
    assert list(shown([0, 2], 1000, duration=1)) == [0, 1, 2]


def test_the_last_frame_is_shown_for_the_last_gap_if_it_has_no_duration() -> None:
    assert list(shown([0, 100, 400], 10)) == [0, 1, 2, 3, 4, 5, 6]


def test_no_frames_yield_no_ticks() -> None:
    assert shown([], 5) == {}


def test_frames_are_consumed_one_at_a_time() -> None:
    taken: list[int] = []

    def frames() -> Iterator[TimedFrame]:
        for number in range(100):
            taken.append(number)
            yield frame(100 * number, 100)

    next(selected_frames(frames(), grid_of(10)))
    assert len(taken) == 2


# ---- every frame ----


def test_without_a_rate_every_frame_has_its_own_time() -> None:
    rule = frame_rule(FrameChoice(), Clock(MS, 2_000))
    given = list(selected_frames([frame(2), frame(5), frame(5), frame(4)], rule))
    assert [one.timestamps_ms for one in given] == [(0.0,), (3.0,), (3.0,), (2.0,)]


def test_only_each_frame_of_n_is_shown() -> None:
    rule = frame_rule(FrameChoice(every=2), Clock(MS, 0))
    given = list(selected_frames([frame(10), frame(20), frame(30), frame(40)], rule))
    assert [one.timestamps_ms for one in given] == [(10.0,), (), (30.0,), ()]


# ---- properties of any stream ----


@dataclass(frozen=True)
class Stream:
    frames: list[TimedFrame]
    time_base: Fraction
    start_us: int
    fps: Fraction

    @property
    def grid(self) -> TickGrid:
        return grid_of(self.fps, self.start_us, self.time_base)

    @property
    def clock(self) -> Clock:
        return Clock(self.time_base, self.start_us)

    def drawn(self, frames: Sequence[TimedFrame] | None = None, **part: Any) -> list[Any]:
        chosen = self.frames if frames is None else frames
        return ticks_of(selected_frames(chosen, self.grid, **part), self.fps)


@st.composite
def streams(draw: st.DrawFn, least_step: int = 0) -> Stream:
    """Streams of a few frames at uneven times; by default time never goes back."""
    fps = Fraction(draw(st.integers(1, 60_000)), draw(st.sampled_from([1000, 1001])))
    time_base = Fraction(1, draw(st.sampled_from([25, 90, 1000, 12_800, 90_000])))
    unit = max(1, round(1 / fps / time_base))
    times = [draw(st.integers(-3 * unit, 20 * unit))]
    for step in draw(st.lists(st.integers(least_step, 50), max_size=40)):
        times.append(times[-1] + step * unit // 10)
    durations = draw(st.lists(st.integers(0, 3 * unit), min_size=len(times), max_size=len(times)))
    start_us = draw(st.sampled_from([0, int(times[0] * time_base * 1_000_000), 123_456, -55_555]))
    frames = [
        frame(pts, duration, name)
        for name, (pts, duration) in enumerate(zip(times, durations, strict=True))
    ]
    return Stream(frames, time_base, start_us, fps)


quickly = settings(derandomize=True, deadline=None, max_examples=100)


@quickly
@given(streams())
def test_a_tick_shows_the_last_frame_not_after_it(stream: Stream) -> None:
    first_ticks = [stream.grid.tick(one.pts) for one in stream.frames]
    last = stream.frames[-1]
    gap = last.pts - stream.frames[-2].pts if len(stream.frames) > 1 else 0
    guessed = last.duration == 1 and gap > 2  # ffmpeg takes it for libavformat's guess
    duration = gap if guessed else last.duration or gap or 1
    end = stream.grid.tick(last.pts + duration)
    assert stream.drawn() == [
        (tick, max(i for i, first in enumerate(first_ticks) if first <= tick))
        for tick in range(first_ticks[0], end)
    ]


@quickly
@given(streams(-20))
def test_ticks_are_consecutive_and_frames_in_order_for_any_times(stream: Stream) -> None:
    drawn = stream.drawn()
    ticks = [tick for tick, _ in drawn]
    sources = [source for _, source in drawn]
    assert ticks == list(range(ticks[0], ticks[0] + len(ticks))) if ticks else True
    assert sources == sorted(sources)


@quickly
@given(streams(1), st.data())
def test_resuming_at_any_time_yields_the_remaining_ticks(
    stream: Stream, data: st.DataObject
) -> None:
    since = data.draw(st.sampled_from([one.pts for one in stream.frames]))
    before = max(0, next(i for i, one in enumerate(stream.frames) if one.pts >= since) - 2)
    rest = stream.drawn(stream.frames[before:], since=since)
    first = stream.grid.tick(since)
    assert rest == [(tick, source) for tick, source in stream.drawn() if tick >= first]
