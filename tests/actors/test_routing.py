"""Which encoder gets the next frames of a task."""

from __future__ import annotations

import pytest

from rayclip.actors.routing import ALIKE_S, NEAR_S, PLENTY_S, candidates

ALL = (0, 1, 2)


def test_frames_stay_on_their_node_while_it_is_no_busier_than_others() -> None:
    assert candidates({0: 0.1, 1: 0.0, 2: 0.0}, near=[0], open_=ALL, waited_s=0.0) == [0]


def test_frames_travel_to_one_that_would_run_dry() -> None:
    loads_s = {0: 0.2 + 2 * ALIKE_S, 1: 0.2, 2: 0.9}
    assert candidates(loads_s, near=[0], open_=ALL, waited_s=0.0) == [1]


def test_frames_stay_however_long_the_queue_is_while_everybody_has_plenty() -> None:
    loads_s = {0: 60.0, 1: PLENTY_S, 2: 2 * PLENTY_S}
    assert candidates(loads_s, near=[0], open_=ALL, waited_s=0.0) == [0]


def test_frames_wait_a_moment_for_an_encoder_on_their_node_and_then_travel() -> None:
    loads_s = {0: 1.0, 1: 1.0, 2: 1.0}
    assert candidates(loads_s, near=[0], open_=[1, 2], waited_s=0.0) == []
    assert candidates(loads_s, near=[0], open_=[1, 2], waited_s=NEAR_S) == [1, 2]


def test_where_none_takes_any_they_wait() -> None:
    assert candidates({0: 1.0, 1: 1.0}, near=[], open_=[], waited_s=60.0) == []


@pytest.mark.parametrize("near", [[], [0, 1, 2]])
def test_of_several_the_least_loaded_are_equally_good(near: list[int]) -> None:
    loads_s = {0: 3.0, 1: 1.2, 2: 1.2 + ALIKE_S / 2}
    assert candidates(loads_s, near, ALL, waited_s=0.0) == [1, 2]
    assert candidates(loads_s, near, [0], waited_s=0.0) == [0]
