"""SIGTERM while Ray starts: Ray's handler exits, and Python may discard that."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from rayclip.session.ray_session import _our_signal_handlers


class Ended(Exception):
    pass


@pytest.fixture(autouse=True)
def own_handler() -> Iterator[None]:
    def end(*_: object) -> None:
        raise Ended

    before = signal.signal(signal.SIGTERM, end)
    yield
    signal.signal(signal.SIGTERM, before)


def exit_as_ray(number: int, _: object) -> None:
    sys.exit(number)


class InADestructor:
    """Python discards what is raised there, and gives it to a hook that prints it."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def signal_while_ray_starts(send: Callable[[], object]) -> None:
    with _our_signal_handlers():
        signal.signal(signal.SIGTERM, exit_as_ray)
        send()


def discarded_by_code() -> None:
    with suppress(SystemExit):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    "send",
    [lambda: signal.raise_signal(signal.SIGTERM), discarded_by_code, InADestructor],
    ids=["raised", "discarded by code", "discarded by Python"],
)
def test_a_signal_while_ray_starts_reaches_our_handler_and_is_not_printed(
    send: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    with pytest.raises(Ended):
        signal_while_ray_starts(send)
    assert not printed
    assert sys.unraisablehook == printed.append


def test_without_a_signal_our_handler_is_back() -> None:
    ours = signal.getsignal(signal.SIGTERM)
    with _our_signal_handlers():
        signal.signal(signal.SIGTERM, exit_as_ray)
    assert signal.getsignal(signal.SIGTERM) is ours


def test_other_exits_are_passed_on() -> None:
    with pytest.raises(SystemExit) as caught, _our_signal_handlers():
        sys.exit(7)
    assert caught.value.code == 7
