"""Transient errors are retried for a limited time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from rayclip.io.retry import RESTART, STORAGE, RetriesExhausted, RetryPolicy, with_retry


@dataclass
class Clock:
    """A clock that advances only by waiting, and by calls with a duration."""

    now: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def failing(times: int, clock: Clock | None = None, takes_s: float = 0.0) -> Callable[[], str]:
    """A call that fails this many times and then succeeds."""
    remaining = [times]

    def call() -> str:
        if clock:
            clock.now += takes_s
        remaining[0] -= 1
        if remaining[0] >= 0:
            raise ConnectionResetError(f"{remaining[0]} more")
        return "success"

    return call


def always(error: Exception) -> bool:
    return True


def attempt(call: Callable[[], str], policy: RetryPolicy, clock: Clock) -> str:
    return with_retry(call, always, policy, clock.wait, clock)


@pytest.mark.parametrize("times", [0, 1, 4])
def test_the_result_of_the_first_success_is_returned(times: int) -> None:
    clock = Clock()
    assert attempt(failing(times), RetryPolicy(5, 1000), clock) == "success"
    assert len(clock.pauses) == times


def test_attempts_are_limited_and_the_last_error_is_reported() -> None:
    clock = Clock()
    with pytest.raises(RetriesExhausted, match=r"^5 more \(tried 5 times in \d+ s\)$") as caught:
        attempt(failing(10), RetryPolicy(5, 1000), clock)
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert len(clock.pauses) == 4


def test_the_time_limit_includes_the_attempts() -> None:
    clock = Clock()
    with pytest.raises(RetriesExhausted, match="tried 3 times in 90 s"):
        attempt(failing(10, clock, takes_s=30), RetryPolicy(99, 80, first_pause_s=0), clock)


def test_no_pause_exceeds_the_time_limit() -> None:
    clock = Clock()
    with pytest.raises(RetriesExhausted, match="tried once"):
        attempt(failing(10), RetryPolicy(99, 1.0, first_pause_s=10.0), clock)
    assert clock.pauses == []


def test_a_permanent_error_is_raised_unchanged_at_once() -> None:
    clock = Clock()
    with pytest.raises(ConnectionResetError):
        with_retry(failing(1), lambda error: False, RetryPolicy(5, 99), clock.wait, clock)
    assert clock.pauses == []


def test_wait_can_stop_the_retries() -> None:
    with pytest.raises(RetriesExhausted, match="tried once"):
        with_retry(failing(9), always, RetryPolicy(5, 99), wait=lambda seconds: True)


def test_pauses_grow_up_to_a_limit_with_jitter() -> None:
    policy = RetryPolicy(9, 999, first_pause_s=1.0, max_pause_s=8.0)
    for number, longest in enumerate([1, 2, 4, 8, 8, 8], start=1):
        pauses = [policy.pause(number) for _ in range(50)]
        assert longest / 2 <= min(pauses) < max(pauses) <= longest
    assert policy.pause(10_000) <= 8.0


@pytest.mark.parametrize("policy", [STORAGE, RESTART])
def test_retries_last_from_seconds_to_a_minute(
    policy: RetryPolicy,
) -> None:
    clock = Clock()
    with pytest.raises(RetriesExhausted):
        attempt(failing(10**6), policy, clock)
    assert 3 < clock.now < 61


def test_an_outage_of_half_a_minute_is_survived() -> None:
    clock = Clock()

    def fail_for_30_s() -> str:
        if clock.now < 30:
            raise ConnectionRefusedError
        return "back"

    assert attempt(fail_for_30_s, STORAGE, clock) == "back"
