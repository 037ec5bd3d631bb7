"""Results of several threads, in the order of the videos."""

from __future__ import annotations

from collections.abc import Iterator

from rayclip.local.machine import in_order
from rayclip.report.results import VideoResult


def test_results_are_held_until_those_before_have_come() -> None:
    arrived: list[int] = []

    def results() -> Iterator[tuple[int, VideoResult]]:
        for position in (1, 0, 3, 2):
            arrived.append(position)
            yield position, VideoResult(str(position), 1)

    ordered = in_order(results(), lambda position, _: position + 1)
    assert next(ordered).video == "0"
    assert arrived == [1, 0]
    assert [result.video for result in ordered] == ["1", "2", "3"]
