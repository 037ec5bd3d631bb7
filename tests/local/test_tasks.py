"""Results of several threads, in the order of the videos."""

from __future__ import annotations

from collections.abc import Iterator

from rayclip.local.tasks import in_order
from rayclip.report.results import VideoResult


def test_results_are_held_until_those_before_have_come() -> None:
    arrived: list[int] = []

    def results() -> Iterator[tuple[int, VideoResult]]:
        for position in (1, 0, 3, 2):
            arrived.append(position)
            yield position, VideoResult(str(position), 1)

    ordered = in_order(results())
    assert next(ordered).video == "0"
    assert arrived == [1, 0]
    assert [result.video for result in ordered] == ["1", "2", "3"]


def test_results_that_are_missing_once_the_last_of_their_kind_has_come_are_not_awaited() -> None:
    arrived = [2, 0, 14, 10, 9, 11, 19]
    assert list(in_order(((n, n) for n in arrived), together=10)) == [0, 2, 9, 10, 11, 14, 19]
