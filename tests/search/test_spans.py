"""Frames that fit become spans."""

from __future__ import annotations

import numpy as np
import pytest

from rayclip.search.spans import Span, find_spans


def spans(*cosines: float, mean: float = 0.0, most: int = 9) -> list[Span]:
    return find_spans(np.array(cosines, np.float32), mean, most)


def test_neighbours_that_fit_nearly_as_well_are_one_span() -> None:
    assert spans(0.0, 0.8, 1.0, 0.9, 0.1) == [Span(1, 3, 2)]


def test_what_fits_is_measured_from_the_mean_of_the_collection() -> None:
    assert spans(0.20, 0.26, 0.30, 0.29, 0.21, mean=0.2)[0] == Span(2, 3, 2)


def test_a_single_frame_that_does_not_fit_is_bridged_and_two_are_not() -> None:
    assert spans(1.0, 0.1, 0.9)[0] == Span(0, 2, 0)
    assert spans(1.0, 0.1, 0.1, 0.9) == [Span(0, 0, 0), Span(3, 3, 3)]


def test_several_spans_come_best_first_and_do_not_overlap() -> None:
    assert spans(0.6, 0.0, 0.0, 1.0, 0.9, 0.0, 0.0, 0.8) == [
        Span(3, 4, 3),
        Span(7, 7, 7),
        Span(0, 0, 0),
    ]


def test_the_slope_beside_a_span_is_no_span() -> None:
    assert spans(0.0, 0.3, 0.6, 1.0, 0.6, 0.3, 0.0) == [Span(3, 3, 3)]


@pytest.mark.parametrize("cosines", [(0.0, 0.0, 0.0), (-1.0, -0.5)])
def test_frames_at_or_below_the_mean_fit_nothing(cosines: tuple[float, ...]) -> None:
    assert spans(*cosines) == []


def test_as_many_spans_as_asked_for() -> None:
    assert spans(1.0, 0.0, 0.0, 0.9, 0.0, 0.0, 0.8, most=2) == [Span(0, 0, 0), Span(3, 3, 3)]


def test_a_constant_curve_above_the_mean_is_one_span() -> None:
    assert spans(0.5, 0.5, 0.5, 0.5) == [Span(0, 3, 0)]
