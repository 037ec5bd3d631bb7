"""Which encoders a task knows, and which gets its next frames. No Ray runs here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fake_ray import NODE, FakeRay, Method, Reply

from rayclip.actors.encoder_router import MAX_REFRESH_S, SPILL_BYTES, EncoderRouter, choose
from rayclip.actors.flow_control import FIRST_WINDOW, Outstanding
from rayclip.actors.messages import EncoderAddress
from rayclip.actors.ray_calls import HOLD_S

WIDE = 10 * SPILL_BYTES


def with_bytes(*sizes: int) -> dict[int, Outstanding]:
    """Return encoders by number, each with this many bytes of the task, and room for more."""
    return {number: Outstanding(size, WIDE) for number, size in enumerate(sizes)}


def test_frames_stay_on_their_node_while_its_encoder_keeps_up() -> None:
    assert choose(with_bytes(SPILL_BYTES - 1, 0, 0), local=[0], size=64) == [0]


def test_frames_go_to_the_idlest_encoder_if_the_one_on_their_node_is_behind() -> None:
    assert choose(with_bytes(SPILL_BYTES, 64, 0), local=[0], size=64) == [2]


def test_frames_stay_on_their_node_if_all_others_are_further_behind() -> None:
    encoders = with_bytes(SPILL_BYTES, 2 * SPILL_BYTES, 2 * SPILL_BYTES)
    assert choose(encoders, local=[0], size=64) == [0]


def test_frames_go_elsewhere_if_the_encoder_on_their_node_has_no_room() -> None:
    encoders = {0: Outstanding(64, window=64), 1: Outstanding(64, WIDE)}
    assert choose(encoders, local=[0], size=64) == [1]


def test_frames_wait_if_no_encoder_has_room() -> None:
    full = {number: Outstanding(64, window=64) for number in range(3)}
    assert choose(full, local=[0], size=1) == []


@pytest.mark.parametrize("local", [[], [0, 1, 2]])
def test_the_least_loaded_encoders_are_equally_good(local: list[int]) -> None:
    assert choose(with_bytes(128, 64, 64), local, size=64) == [1, 2]


class Control:
    """A control actor whose encoders never answer.

    Attributes:
        up: encoders that are up, and since when.
        is_placed: whether an encoder has a place.
        asked_s: when the list of encoders was requested.
        sent: numbers of the encoders that frames went to.
    """

    def __init__(self, ray: FakeRay) -> None:
        self.up = {0: 0.0}
        self.asked_s: list[float] = []
        self.sent: list[int] = []
        self.encoders = Method(self._list)
        self.has_placed_encoders = Method(lambda: Reply(self.is_placed))
        self.is_placed = True
        self._ray = ray

    def _list(self, lost: frozenset[int]) -> Reply:
        self.asked_s.append(self._ray.now_s)
        up = [number for number, since_s in self.up.items() if since_s <= self._ray.now_s]
        return Reply([self.address(number) for number in up])

    def address(self, number: int) -> EncoderAddress:
        def encode(*_: Any) -> Reply:
            self.sent.append(number)
            return Reply()

        return EncoderAddress(number, SimpleNamespace(encode=Method(encode)), NODE)


def send(to: EncoderRouter, size: int = FIRST_WINDOW) -> None:
    to.send(object(), size)  # type: ignore[arg-type]


def test_an_encoder_that_comes_up_after_the_first_gets_frames_at_once() -> None:
    ray = FakeRay()
    control = Control(ray)
    control.up[1] = 1.5
    router = EncoderRouter(control, ray.runtime)
    for _ in range(2):
        send(router)
    assert control.sent == [0, 1]
    assert ray.now_s <= 4


def test_a_long_task_rarely_requests_the_list_of_encoders() -> None:
    ray = FakeRay()
    control = Control(ray)
    router = EncoderRouter(control, ray.runtime)
    for _ in range(200):
        send(router, size=0)
        ray.now_s += 1
    assert len(control.asked_s) <= 5 + 200 / MAX_REFRESH_S


def test_a_task_that_waits_keeps_its_cpus_for_a_while_and_then_releases_them() -> None:
    ray = FakeRay()
    router = EncoderRouter(Control(ray), ray.runtime)
    calls = [router.send(object(), 0) for _ in range(2)]  # type: ignore[arg-type]
    while ray.now_s < HOLD_S:
        assert not router.wait(calls, 1.0)
    assert not ray.released_s
    assert not router.wait(calls, 1.0)
    assert ray.released_s
    calls[0].future.set_result(None)
    ray.answered.add(calls[0].reply)
    assert router.wait(calls, 1.0) == [calls[0]]
    released_s = ray.released_s
    assert not router.wait(calls[1:], 1.0)
    assert ray.released_s == released_s, "an answer did not begin the time anew"
    ray.now_s += 2 * HOLD_S
    call = router.send(object(), 0)  # type: ignore[arg-type]
    assert not router.wait([call], 1.0)
    assert ray.released_s == released_s, "the task did not wait when it sent more"


@pytest.mark.parametrize("is_placed", [True, False])
def test_a_task_keeps_its_cpus_for_an_encoder_that_loads_but_not_for_one_without_a_place(
    is_placed: bool,
) -> None:
    ray = FakeRay()
    control = Control(ray)
    control.is_placed = is_placed
    waiting = Reply()
    control.encoders = Method(lambda _: waiting)
    ray.when_got = lambda: waiting.future().set_result([control.address(0)])
    send(EncoderRouter(control, ray.runtime))
    assert (ray.now_s > HOLD_S) == is_placed
