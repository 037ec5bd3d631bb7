"""When a task sends its frames: many together, and all of them before it waits."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from types import SimpleNamespace

import numpy as np
import pytest
from fake_ray import FakeRay, Method, Reply

from rayclip.actors import encoder_client
from rayclip.actors.encoder_client import EncoderClient
from rayclip.actors.encoder_router import Call
from rayclip.actors.flow_control import FRAME_BYTES
from rayclip.actors.messages import EncoderAddress, EncodeReply, EncodeRequest, Features, Frame
from rayclip.actors.ray_calls import Runtime

ONE = (0,)  # model


class OneEncoder:
    """A fake router with one encoder, which answers when it is waited for and records what it was
    sent.

    Attributes:
        now_s: the time on its clock; waiting for a missing reply advances it.
        answers_at_s: when it answers requests sent now.
        lost: whether it is reported silent; later requests then go to another encoder.
    """

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.awaited: list[bool] = []
        self.flushed = 0
        self.had_when_waited_for: list[int] = []
        self.now_s = self.answers_at_s = 0.0
        self.lost = False
        self._answered_at_s: dict[Call, float] = {}

    def send(self, request: EncodeRequest, size: int) -> Call:
        self.sent.append(size // FRAME_BYTES)
        self.awaited.append(request.is_awaited)
        features: list[list[Features]] = [
            [np.full((len(chunk.frames), 2), len(chunk.frames), np.float32)]
            for chunk in request.chunks
        ]
        address = EncoderAddress(0, SimpleNamespace(flush=Method(self._flush)), "a node")
        call = Call(Reply(EncodeReply(features, 64)), address, size)  # type: ignore[arg-type]
        self._answered_at_s[call] = self.answers_at_s
        return call

    def _flush(self) -> None:
        self.flushed += 1

    def wait(self, calls: Iterable[Call], timeout_s: float) -> Collection[Call]:
        self.had_when_waited_for = list(self.sent)
        there = [call for call in calls if self._answered_at_s[call] <= self.now_s]
        self.now_s += 0.0 if there else timeout_s
        return there

    def is_silent(self, address: EncoderAddress) -> bool:
        if self.lost:
            self.answers_at_s = 0.0
        return self.lost

    def finish(self, call: Call, window: int | None = None) -> None:
        pass


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> OneEncoder:
    monkeypatch.setattr(encoder_client, "MAX_DELAY_S", np.inf)
    return OneEncoder()


def client_of(encoder: OneEncoder) -> EncoderClient:
    runtime = Runtime(FakeRay(), lambda: encoder.now_s)
    return EncoderClient(None, encoder, runtime)  # type: ignore[arg-type]


def frames(count: int) -> list[Frame]:
    return [np.zeros((4, 4, 3), np.uint8)] * count


def test_small_chunks_share_a_request(encoder: OneEncoder) -> None:
    encoders = client_of(encoder)
    for count in (25, 25, 14):
        assert encoder.sent == []
        encoders.submit(frames(count), ONE)
    assert encoder.sent == [64]


def test_a_chunk_that_does_not_fit_starts_a_new_request(encoder: OneEncoder) -> None:
    encoders = client_of(encoder)
    encoders.submit(frames(40), ONE)
    encoders.submit(frames(40), ONE)
    assert encoder.sent == [40]


def test_a_task_sends_all_its_frames_before_it_waits(encoder: OneEncoder) -> None:
    encoders = client_of(encoder)
    first, second = (encoders.submit(frames(count), ONE) for count in (40, 30))
    np.testing.assert_array_equal(first.result()[0], np.full((40, 2), 40))
    assert encoder.had_when_waited_for == [40, 30]
    assert encoder.awaited == [False, True]
    assert not encoder.flushed
    np.testing.assert_array_equal(second.result()[0], np.full((30, 2), 30))


def test_a_task_that_has_sent_all_its_frames_says_once_that_it_waits(encoder: OneEncoder) -> None:
    encoders = client_of(encoder)
    chunks = [encoders.submit(frames(32), ONE) for _ in range(4)]
    assert encoder.sent == [64, 64]
    for chunk in chunks:
        chunk.result()
    assert encoder.awaited == [False, False]
    assert encoder.flushed == 1


def test_taking_features_that_are_back_sends_nothing(encoder: OneEncoder) -> None:
    encoders = client_of(encoder)
    first = encoders.submit(frames(64), ONE)
    assert list(encoders.wait([first])) == [first]
    encoders.submit(frames(10), ONE)
    first.result()
    assert encoder.sent == [64]


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "together"])
def test_all_frames_with_a_lost_encoder_time_out_together(
    together: bool, encoder: OneEncoder
) -> None:
    encoder.answers_at_s, encoder.lost = np.inf, True
    encoders = client_of(encoder)
    chunks = [encoders.submit(frames(64), ONE) for _ in range(4)]
    if together:
        encoders.wait(chunks)
    assert [len(chunk.result()[0]) for chunk in chunks] == [64] * 4
    assert encoder.now_s == encoder_client.TIMEOUT_S
    assert encoder.sent == [64] * 8


def test_a_slow_but_responsive_encoder_is_waited_for(encoder: OneEncoder) -> None:
    encoder.answers_at_s = 3 * encoder_client.TIMEOUT_S
    assert len(client_of(encoder).submit(frames(64), ONE).result()[0]) == 64
    assert encoder.sent == [64]
