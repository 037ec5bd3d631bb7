"""Which encoders a task knows, and since when. No Ray runs here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rayclip.actors import dispatch
from rayclip.actors.credits import FIRST_FRAMES, Terms
from rayclip.actors.dispatch import REFRESH_S, Dispatch
from rayclip.actors.fleet import Directory, EncoderAddress
from rayclip.actors.pieces import SmallChunk


class Run:
    """In place of Ray, with a control actor and encoders that answer nothing.

    Attributes:
        now_s: what the clock says; time passes where somebody waits.
        up: encoders that are up, and when they came up.
        asked_s: when somebody asked which there are.
        sent: numbers of the encoders that frames went to.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.up = {0: 0.0}
        self.asked_s: list[float] = []
        self.sent: list[int] = []
        self.encoders = SimpleNamespace(remote=self._directory)

    def _directory(self, gone: frozenset[int]) -> Directory:
        self.asked_s.append(self.now_s)
        there = [number for number, since_s in self.up.items() if since_s <= self.now_s]
        return Directory([self._address(number) for number in there], keeps_cpus=False)

    def _address(self, number: int) -> EncoderAddress:
        def encode(*_: Any) -> object:
            self.sent.append(number)
            return object()

        handle = SimpleNamespace(encode=SimpleNamespace(remote=encode))
        return EncoderAddress(number, handle, "a node", Terms(0, FIRST_FRAMES))

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "a node")

    def get(self, reply: Directory) -> Directory:
        return reply

    def wait(self, replies: list[object], timeout: float) -> tuple[list[object], list[object]]:
        self.now_s += timeout
        return [], replies


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    run = Run()
    monkeypatch.setattr(dispatch, "ray", run)
    monkeypatch.setattr(dispatch, "time", SimpleNamespace(monotonic=lambda: run.now_s))
    return run


def send(to: Dispatch, frames: int = FIRST_FRAMES) -> None:
    to.send(object(), [SmallChunk("a chunk", frames)])  # type: ignore[arg-type]


def test_an_encoder_that_comes_up_after_the_first_gets_frames_at_once(run: Run) -> None:
    run.up[1] = 1.5
    to = Dispatch(run)
    for _ in range(2):
        send(to)
    assert run.sent == [0, 1]
    assert run.now_s <= 4


def test_in_the_long_run_a_task_seldom_asks_which_encoders_there_are(run: Run) -> None:
    to = Dispatch(run)
    for _ in range(200):
        send(to, frames=0)
        run.now_s += 1
    assert len(run.asked_s) <= 5 + 200 / REFRESH_S
