"""Which source frame every output tick shows."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import pytest

from rayclip.sampling import TickGrid, parse_fps, rescale_nearest, shown_ticks

MS = Fraction(1, 1000)


@dataclass(frozen=True)
class Frame:
    pts: int
    duration: int = 0


def shown(
    pts: Sequence[int], fps: Fraction | int, *, duration: int = 0, start_us: int = 0
) -> dict[int, int]:
    """Tick -> pts of the frame that it shows, for pts in ms."""
    frames = [Frame(one, duration) for one in pts]
    grid = TickGrid(MS, Fraction(fps), start_us)
    return {tick: frame.pts for frame, ticks in shown_ticks(frames, grid) for tick in ticks}


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
def test_what_is_no_frame_rate_is_a_value_error(value: str | int) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_fps(value)


def test_a_frame_rate_over_zero_is_a_value_error_too() -> None:
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
    assert TickGrid(MS, Fraction(5), start_us=0).tick(pts) == tick


def test_ticks_count_from_the_start_of_the_container() -> None:
    grid = TickGrid(MS, Fraction(10), start_us=1_400_000)
    assert [grid.tick(pts) for pts in (1400, 1500, 2400)] == [0, 1, 10]


def test_a_container_that_starts_before_zero_moves_its_frames_later() -> None:
    assert TickGrid(MS, Fraction(10), start_us=-200_000).tick(0) == 2


def test_the_start_is_rounded_to_the_time_base_before_it_is_taken_off() -> None:
    coarse = TickGrid(Fraction(1, 10), Fraction(1000), start_us=149_999)
    assert coarse.tick(3) == 200  # 3 - 1 tenths of a second, not 150.001 ms


@pytest.mark.parametrize(
    ("fps", "tick", "milliseconds"),
    [(Fraction(5), 3, 600.0), (Fraction(30_000, 1001), 30_000, 1_001_000.0), (Fraction(5), 0, 0.0)],
)
def test_the_time_of_a_tick_is_exact(fps: Fraction, tick: int, milliseconds: float) -> None:
    assert TickGrid(MS, fps, start_us=0).milliseconds(tick) == milliseconds


# ---- what is shown ----


def test_a_tick_shows_the_last_frame_at_or_before_it() -> None:
    assert shown([0, 100, 200, 300, 400, 500], 5, duration=100) == {0: 0, 1: 200, 2: 400}


def test_a_frame_is_repeated_until_the_next_one_where_ticks_are_denser_than_frames() -> None:
    assert shown([0, 500], 4, duration=500) == {0: 0, 1: 0, 2: 500, 3: 500}


def test_at_its_own_rate_every_frame_is_shown_once() -> None:
    pts = [0, 40, 80, 120, 160]
    assert shown(pts, 25, duration=40) == dict(enumerate(pts))


def test_frames_at_uneven_times_are_shown_until_the_next_one() -> None:
    pts = [0, 100, 150, 900, 1000]
    assert shown(pts, 5, duration=100) == {0: 0, 1: 150, 2: 150, 3: 150, 4: 150, 5: 1000}


def test_of_several_frames_at_one_tick_the_last_is_shown() -> None:
    assert shown([0, 10, 20, 1000, 1010], 1, duration=500) == {0: 20, 1: 1010}


def test_two_frames_of_the_same_pts_count_as_the_later_one() -> None:
    frames = [Frame(0, 100), Frame(1000, 1000), Frame(1000, 1000)]
    grid = TickGrid(MS, Fraction(1), start_us=0)
    assert [(id(frame), ticks) for frame, ticks in shown_ticks(frames, grid)] == [
        (id(frames[0]), range(1)),
        (id(frames[2]), range(1, 2)),
    ]


def test_video_that_starts_after_its_sound_has_no_tick_before_its_first_frame() -> None:
    assert list(shown([2000, 2500, 3000], 2, duration=500)) == [4, 5, 6]


def test_video_that_starts_late_in_a_container_that_does_too_starts_at_tick_zero() -> None:
    pts = [2000, 2500, 3000]
    assert list(shown(pts, 2, duration=500, start_us=2_000_000)) == [0, 1, 2]


def test_the_last_frame_is_shown_for_its_duration() -> None:
    assert list(shown([0, 100], 10, duration=500)) == [0, 1, 2, 3, 4, 5]


def test_the_last_frame_is_shown_for_the_last_gap_where_it_has_no_duration() -> None:
    assert list(shown([0, 100, 400], 10)) == [0, 1, 2, 3, 4, 5, 6]


def test_a_clip_too_short_to_hit_a_tick_gives_its_first_frame_at_tick_zero() -> None:
    assert shown([0, 100, 200, 300], 1, duration=100) == {0: 0}


def test_a_single_frame_without_duration_is_shown_once() -> None:
    assert shown([0], 5) == {0: 0}


def test_no_frames_give_no_ticks() -> None:
    assert shown([], 5) == {}


def test_frames_are_taken_one_at_a_time() -> None:
    taken: list[int] = []

    def frames() -> Iterator[Frame]:
        for number in range(100):
            taken.append(number)
            yield Frame(100 * number, 100)

    next(iter(shown_ticks(frames(), TickGrid(MS, Fraction(10), start_us=0))))
    assert len(taken) == 2


# ---- the same, by brute force, on many random streams ----


@dataclass(frozen=True)
class Stream:
    frames: list[Frame]
    grid: TickGrid


def random_stream(seed: int) -> Stream:
    rng = random.Random(seed)
    fps = Fraction(rng.randint(1, 60_000), rng.choice([1000, 1001]))
    time_base = Fraction(1, rng.choice([25, 90, 1000, 12_800, 90_000]))
    per_frame = max(1, round(1 / fps / time_base * Fraction(rng.uniform(0.1, 3))))
    pts = [rng.randint(-3, 20) * per_frame]
    for _ in range(rng.randint(0, 60)):
        pts.append(
            pts[-1] + rng.choice([0, 1, per_frame, per_frame, rng.randint(1, 5 * per_frame)])
        )
    durations = [rng.choice([0, per_frame, 3 * per_frame]) for _ in pts]
    start_us = rng.choice([0, int(pts[0] * time_base * 1_000_000), rng.randint(-(10**6), 10**6)])
    return Stream(list(map(Frame, pts, durations)), TickGrid(time_base, fps, start_us))


def by_brute_force(stream: Stream) -> dict[int, int]:
    """Tick -> index of the frame that it shows, as the rule says it, without any cleverness."""
    ticks = [stream.grid.tick(frame.pts) for frame in stream.frames]
    last = stream.frames[-1]
    gap = last.pts - stream.frames[-2].pts if len(stream.frames) > 1 else 0
    end = stream.grid.tick(last.pts + (last.duration or gap or 1))
    return {
        tick: max(i for i, first in enumerate(ticks) if first <= tick)
        for tick in range(ticks[0], end)
    } or {0: 0}


SEEDS = range(200)


def drawn(stream: Stream) -> list[tuple[int, int]]:
    """Every tick with the index of the frame that it shows, in the order in which they come."""
    place = {id(frame): i for i, frame in enumerate(stream.frames)}
    shown = shown_ticks(stream.frames, stream.grid)
    return [(tick, place[id(frame)]) for frame, ticks in shown for tick in ticks]


@pytest.mark.parametrize("seed", SEEDS)
def test_random_streams_are_shown_as_the_rule_says(seed: int) -> None:
    stream = random_stream(seed)
    assert dict(drawn(stream)) == by_brute_force(stream)


def test_the_ticks_of_random_streams_are_consecutive() -> None:
    for seed in SEEDS:
        ticks = [tick for tick, _ in drawn(random_stream(seed))]
        assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))


def test_the_frames_of_random_streams_never_go_backward() -> None:
    for seed in SEEDS:
        sources = [source for _, source in drawn(random_stream(seed))]
        assert sources == sorted(sources)


def test_every_frame_of_a_random_stream_is_given_at_most_once() -> None:
    for seed in SEEDS:
        stream = random_stream(seed)
        given = [id(frame) for frame, _ in shown_ticks(stream.frames, stream.grid)]
        assert len(given) == len(set(given))
