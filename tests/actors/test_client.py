"""When a task's frames leave for an encoder: many together, and all of them once it waits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rayclip.actors import client
from rayclip.actors.client import RemoteEncoders
from rayclip.actors.dispatch import Answer
from rayclip.actors.pieces import SmallChunk


class OneEncoder:
    """In place of the encoders of a run: it answers whoever waits, and keeps what it was sent."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.had_when_waited_for: list[int] = []

    def send(self, stored: NDArray[np.uint8], chunks: Sequence[SmallChunk]) -> tuple[None, Answer]:
        self.sent.append(len(stored))
        features = [np.full((chunk.frames, 2), chunk.frames, np.float32) for chunk in chunks]
        return None, Answer(features)  # type: ignore[arg-type]

    def first_of(self, answers: Iterable[Answer], timeout_s: float) -> Collection[Answer]:
        self.had_when_waited_for = list(self.sent)
        return list(answers)

    def is_there(self, answer: Answer) -> bool:
        return False

    def answered(self, answer: Answer, terms: Any) -> None:
        pass


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> OneEncoder:
    encoder = OneEncoder()
    monkeypatch.setattr(client, "Dispatch", lambda pool: encoder)
    monkeypatch.setattr(client.ray, "put", lambda frames: frames)
    monkeypatch.setattr(client.ray, "get", lambda features: (features, None))
    monkeypatch.setattr(client, "WAIT_S", np.inf)
    return encoder


def frames(count: int) -> NDArray[np.uint8]:
    return np.zeros((count, 4, 4, 3), np.uint8)


def test_few_frames_travel_together(encoder: OneEncoder) -> None:
    encoders = RemoteEncoders(None)
    for count in (25, 25, 14):
        assert encoder.sent == []
        encoders.submit(frames(count))
    assert encoder.sent == [64]


def test_frames_that_would_be_too_many_together_leave_the_others_alone(encoder: OneEncoder) -> None:
    encoders = RemoteEncoders(None)
    encoders.submit(frames(40))
    encoders.submit(frames(40))
    assert encoder.sent == [40]


def test_a_task_that_waits_for_features_has_sent_all_of_its_frames(encoder: OneEncoder) -> None:
    encoders = RemoteEncoders(None)
    first, second = (encoders.submit(frames(count)) for count in (40, 30))
    np.testing.assert_array_equal(first.result(), np.full((40, 2), 40))
    assert encoder.had_when_waited_for == [40, 30]
    np.testing.assert_array_equal(second.result(), np.full((30, 2), 30))


def test_features_that_are_there_send_nothing(encoder: OneEncoder) -> None:
    encoders = RemoteEncoders(None)
    first = encoders.submit(frames(64))
    assert list(encoders.wait([first])) == [first]
    encoders.submit(frames(10))
    first.result()
    assert encoder.sent == [64]
