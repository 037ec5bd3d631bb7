"""Several models on one device: each has its own batches, and they share its passes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayclip.actors import encoder
from rayclip.actors.device_batchers import DeviceBatchers
from rayclip.actors.device_faults import BlamedFrames
from rayclip.actors.encoder import EncoderSettings
from rayclip.actors.messages import Features, Frame
from rayclip.actors.passes import Passes
from rayclip.errors import RunStopped
from rayclip.io.crash_log import Cause, CrashLog, Death
from rayclip.model.models import describe
from rayclip.model.preprocess import Resizing
from rayclip.model.squares import Squares

DEADLINE_S = 10.0
RGB = np.random.default_rng(0).integers(256, size=(30, 50, 3), dtype=np.uint8)
RESIZINGS = [Resizing(8), Resizing(4, "squash"), Resizing(8)]


class Gauge:
    """How many passes run at once, of all models.

    Attributes:
        most: the largest number so far.
    """

    def __init__(self) -> None:
        self.most = self._now = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._now -= 1


class Model:
    """Means of frames as features; records the sizes and shapes of its batches."""

    notes = ()

    def __init__(self, batch_size: int, gauge: Gauge, passes_at_once: int = 2) -> None:
        self.batch_size = batch_size
        self.passes_at_once = passes_at_once
        self.batches: list[list[tuple[int, ...]]] = []
        self._gauge = gauge

    def encode_image(self, frames: Sequence[Frame]) -> Features:
        with self._gauge:
            self.batches.append([frame.shape for frame in frames])
            return np.stack(frames).mean(axis=(1, 2), dtype=np.float32)

    def close(self) -> None:
        pass


@pytest.fixture
def log(tmp_path: Path) -> Iterator[CrashLog]:
    log = CrashLog(str(tmp_path / "log"))
    yield log
    log.close()


def batchers_of(models: Sequence[Model], log: CrashLog) -> Any:
    load: Any = lambda: models  # noqa: E731
    return DeviceBatchers(RESIZINGS[: len(models)], load, log)


def test_each_model_encodes_its_own_square_in_batches_of_its_own_size(log: CrashLog) -> None:
    gauge = Gauge()
    models = [Model(4, gauge), Model(3, gauge), Model(2, gauge)]
    device = batchers_of(models, log)
    frames = [Squares(RESIZINGS).of(RGB)] * 12
    for future, resizing in zip(device.submit(frames, (0, 1, 2), "a"), RESIZINGS, strict=True):
        mean = Squares([resizing]).of(RGB).mean(axis=(0, 1), dtype=np.float32)
        np.testing.assert_allclose(future.result(DEADLINE_S), [mean] * 12, rtol=1e-6)
    assert [[len(batch) for batch in model.batches] for model in models] == [
        [4] * 3,
        [3] * 4,
        [2] * 6,
    ]
    assert {shape for batch in models[1].batches for shape in batch} == {(4, 4, 3)}
    assert device.waiting == 0
    assert device.stats.frames == 36


def test_a_chunk_goes_only_to_the_models_that_lack_its_video(log: CrashLog) -> None:
    gauge = Gauge()
    models = [Model(4, gauge), Model(4, gauge)]
    device = batchers_of(models, log)
    (future,) = device.submit([Squares(RESIZINGS[1:2]).of(RGB)], (1,), "a")
    assert future.result(DEADLINE_S).shape == (1, 3)
    assert [len(model.batches) for model in models] == [0, 1]


def test_all_models_together_run_no_more_passes_at_once_than_one(log: CrashLog) -> None:
    gauge = Gauge()
    models = [Model(1, gauge) for _ in range(3)]
    device = batchers_of(models, log)
    frames = [Squares(RESIZINGS).of(RGB)] * 40
    for future in device.submit(frames, (0, 1, 2), "a"):
        future.result(DEADLINE_S)
    assert gauge.most <= 2


def test_a_model_without_frames_leaves_the_only_pass_to_another(log: CrashLog) -> None:
    gauge = Gauge()
    device = batchers_of([Model(4, gauge, 1), Model(4, gauge, 1)], log)
    for chunk in range(3):
        (future,) = device.submit([Squares(RESIZINGS[1:2]).of(RGB)] * 4, (1,), f"{chunk}")
        assert len(future.result(DEADLINE_S)) == 4


def test_frames_are_blamed_for_the_model_that_they_crashed_and_no_other(log: CrashLog) -> None:
    death = Death(Cause.CRASH, "Segmentation fault", ("a.1",))
    log.deaths = (death, death)
    gauge = Gauge()
    device = batchers_of([Model(4, gauge), Model(4, gauge)], log)
    good, blamed = device.submit([Squares(RESIZINGS[:2]).of(RGB)], (0, 1), "a")
    assert len(good.result(DEADLINE_S)) == 1
    with pytest.raises(BlamedFrames):
        blamed.result(DEADLINE_S)


def test_if_a_model_cannot_be_loaded_every_model_says_so(log: CrashLog) -> None:
    def fail() -> Any:
        raise RunStopped("no memory")

    device = DeviceBatchers(RESIZINGS[:2], fail, log)
    for future in device.submit([Squares(RESIZINGS[:2]).of(RGB)], (0, 1), "a"):
        with pytest.raises(RunStopped, match="no memory"):
            future.result(DEADLINE_S)
    with pytest.raises(RunStopped, match="no memory"):
        device.ready.result(DEADLINE_S)


def test_a_pass_alone_waits_for_the_others_and_holds_them_back() -> None:
    passes, order = Passes(), []
    passes.allow(2)
    passes.begin(alone=False)

    def run(name: str, alone: bool) -> None:
        passes.begin(alone)
        order.append(name)
        passes.end(alone)

    alone = threading.Thread(target=run, args=("alone", True))
    alone.start()
    while not passes._is_reserved:
        pass
    other = threading.Thread(target=run, args=("other", False))
    other.start()
    assert order == []
    passes.end(alone=False)
    alone.join(DEADLINE_S)
    other.join(DEADLINE_S)
    assert order == ["alone", "other"]


class OutOfMemoryError(RuntimeError):
    """As torch's, by its name."""


class Full(Model):
    """A model that is on a device but has no room for a batch."""

    device = "cuda"

    def black_frames(self, count: int) -> list[Frame]:
        return [np.zeros((8, 8, 3), np.uint8)] * count

    def encode_image(self, frames: Sequence[Frame]) -> Features:
        if len(frames) == self.batch_size:
            raise OutOfMemoryError("CUDA out of memory")
        return super().encode_image(frames)


def unable_to_load(settings: EncoderSettings, _: bytes | None) -> Any:
    raise RunStopped("No encoder can start: CUDA out of memory") from OutOfMemoryError("no room")


@pytest.mark.parametrize("load", [unable_to_load, lambda *_: Full(4, Gauge())])
def test_models_that_do_not_fit_together_are_refused_before_any_frame(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "load_encoder_model", load)
    models = [EncoderSettings(describe("demo"), "cuda", None, None)] * 2
    with pytest.raises(RunStopped, match="demo and demo do not fit into the memory of the device"):
        encoder.load_encoder_models(models)


def test_one_model_that_has_no_memory_says_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "load_encoder_model", unable_to_load)
    with pytest.raises(RunStopped, match="No encoder can start: CUDA out of memory"):
        encoder.load_encoder_models([EncoderSettings(describe("demo"), "cuda", None, None)])
