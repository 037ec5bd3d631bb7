"""What may pass is tried again, for a while and not for ever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from rayclip.io.retry import RESTART, STORAGE, RetriesExhausted, RetryPolicy, with_retry


@dataclass
class Clock:
    """Time that only passes where somebody waits, or where a call says how long it took."""

    now: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def failing(times: int, clock: Clock | None = None, takes_s: float = 0.0) -> Callable[[], str]:
    """Something that goes wrong so many times, and then well."""
    left = [times]

    def call() -> str:
        if clock:
            clock.now += takes_s
        left[0] -= 1
        if left[0] >= 0:
            raise ConnectionResetError(f"{left[0]} more")
        return "well"

    return call


def always(error: Exception) -> bool:
    return True


def attempt(call: Callable[[], str], patience: RetryPolicy, clock: Clock) -> str:
    return with_retry(call, always, patience, clock.wait, clock)


@pytest.mark.parametrize("times", [0, 1, 4])
def test_what_goes_well_in_the_end_went_well(times: int) -> None:
    clock = Clock()
    assert attempt(failing(times), RetryPolicy(5, 1000), clock) == "well"
    assert len(clock.pauses) == times


def test_attempts_are_bounded_and_the_last_error_is_told() -> None:
    clock = Clock()
    with pytest.raises(RetriesExhausted, match=r"^5 more \(tried 5 times in \d+ s\)$") as caught:
        attempt(failing(10), RetryPolicy(5, 1000), clock)
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert len(clock.pauses) == 4


def test_time_is_bounded_with_that_of_the_attempts() -> None:
    clock = Clock()
    with pytest.raises(RetriesExhausted, match="tried 3 times in 90 s"):
        attempt(failing(10, clock, takes_s=30), RetryPolicy(99, 80, first_pause_s=0), clock)


def test_no_pause_is_begun_that_would_end_too_late() -> None:
    clock = Clock()
    with pytest.raises(RetriesExhausted, match="tried once"):
        attempt(failing(10), RetryPolicy(99, 1.0, first_pause_s=10.0), clock)
    assert clock.pauses == []


def test_what_will_not_pass_is_raised_at_once_as_it_is() -> None:
    clock = Clock()
    with pytest.raises(ConnectionResetError):
        with_retry(failing(1), lambda error: False, RetryPolicy(5, 99), clock.wait, clock)
    assert clock.pauses == []


def test_whoever_waits_can_end_the_patience() -> None:
    with pytest.raises(RetriesExhausted, match="tried once"):
        with_retry(failing(9), always, RetryPolicy(5, 99), wait=lambda seconds: True)


def test_pauses_grow_up_to_a_limit_and_are_spread_at_random() -> None:
    patience = RetryPolicy(9, 999, first_pause_s=1.0, max_pause_s=8.0)
    for number, most in enumerate([1, 2, 4, 8, 8, 8], start=1):
        pauses = [patience.pause(number) for _ in range(50)]
        assert most / 2 <= min(pauses) < max(pauses) <= most
    assert patience.pause(10_000) <= 8.0


@pytest.mark.parametrize("patience", [STORAGE, RESTART])
def test_our_patience_is_that_of_a_person_and_less_than_the_watchdogs(
    patience: RetryPolicy,
) -> None:
    clock = Clock()
    with pytest.raises(RetriesExhausted):
        attempt(failing(10**6), patience, clock)
    assert 3 < clock.now < 61


def test_a_storage_that_is_away_for_half_a_minute_is_awaited() -> None:
    clock = Clock()

    def away() -> str:
        if clock.now < 30:
            raise ConnectionRefusedError
        return "back"

    assert attempt(away, STORAGE, clock) == "back"
