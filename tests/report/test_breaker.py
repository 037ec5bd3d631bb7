"""The circuit breaker stops a run if so many videos fail that they cannot be the cause."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from rayclip.errors import RunStopped
from rayclip.report.breaker import WINDOW, CircuitBreaker
from rayclip.report.results import Failure, VideoResult

HALF = WINDOW // 2


def results(codes: Iterable[str | None]) -> list[VideoResult]:
    """Videos v0, v1, …: done, or failed with a code."""
    return [
        VideoResult(f"v{i}", 0, Failure(f"v{i}", "read", code, "no route to host", 1))
        if code
        else VideoResult(f"v{i}", 3)
        for i, code in enumerate(codes)
    ]


def stops_at(
    codes: Iterable[str | None], failed_before: dict[str, str] | None = None
) -> int | None:
    """The number of results after which the run was stopped; None if it was not."""
    breaker = CircuitBreaker(failed_before or {})
    for number, result in enumerate(results(codes), start=1):
        try:
            breaker.add(result)
        except RunStopped:
            return number
    return None


BAD, GOOD, OTHER = ["read_failed"], [None], ["not_a_video"]


@pytest.mark.parametrize(
    ("codes", "stops"),
    [
        (BAD * WINDOW, WINDOW),
        (BAD * (WINDOW - 1), None),
        (BAD * 12, None),
        (GOOD * HALF + BAD * HALF, None),
        (GOOD * HALF + BAD * (HALF + 1), WINDOW + 1),
        (BAD * (HALF + 1) + GOOD * (HALF - 1), None),
        (BAD * (HALF + 1) + GOOD * (HALF - 2) + BAD, WINDOW),
        ((BAD + OTHER) * 1000, None),
        ((BAD + BAD + OTHER) * 1000, WINDOW),
        ((BAD + GOOD) * 1000, None),
        (GOOD * 10_000 + BAD * 1000, 10_000 + HALF + 1),
        (BAD * HALF + GOOD * WINDOW + BAD * HALF + GOOD * WINDOW, None),
    ],
    ids=[
        "all",
        "all of a smaller run",
        "a small folder of garbage",
        "half",
        "over half",
        "over half, but the last one is good",
        "over half, including the last",
        "two codes in turn",
        "one code twice as often",
        "every second one",
        "a storage fails late",
        "twice in a long run",
    ],
)
def test_a_run_stops_if_over_half_of_the_last_200_videos_fail_with_one_code(
    codes: list[str | None], stops: int | None
) -> None:
    assert stops_at(codes) == stops


def test_videos_that_failed_with_the_same_code_before_do_not_count() -> None:
    failed_before = {f"v{i}": "read_failed" for i in range(1000)}
    assert stops_at(BAD * 1000, failed_before) is None
    assert stops_at(BAD * 1000 + BAD * WINDOW, failed_before) == 1000 + WINDOW


def test_videos_that_failed_with_another_code_before_count() -> None:
    assert stops_at(BAD * WINDOW, {f"v{i}": "not_found" for i in range(1000)}) == WINDOW


def test_the_message_says_what_failed_how_often_why_and_what_to_do() -> None:
    breaker = CircuitBreaker({})
    *earlier, last = results(BAD * WINDOW)
    for result in earlier:
        breaker.add(result)
    with pytest.raises(RunStopped) as caught:
        breaker.add(last)
    message = str(caught.value)
    for words in (
        "200 of the last 200 videos",
        "failed with read_failed",
        "v199: read/read_failed: no route to host",
        "rerun the same command",
    ):
        assert words in message
    assert caught.value.exit_status == 3
