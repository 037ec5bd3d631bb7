"""The squares of several models in one frame."""

from __future__ import annotations

import numpy as np
import pytest

from rayclip.model import squares as module
from rayclip.model.preprocess import Resizing, resize
from rayclip.model.squares import Squares

RGB = np.random.default_rng(0).integers(256, size=(30, 50, 3), dtype=np.uint8)
SHORTER, SQUASHED, LARGE = Resizing(16), Resizing(16, "squash"), Resizing(32)


def test_a_frame_for_one_preprocessing_is_its_square() -> None:
    squares = Squares([SHORTER, SHORTER])
    frame = squares.of(RGB)
    assert frame.shape == (16, 16, 3)
    assert np.array_equal(frame, resize(RGB, SHORTER))
    assert squares.view(frame, 1) is frame


@pytest.mark.parametrize("is_compiled", [True, False])
def test_each_model_finds_its_own_square_in_a_frame_without_a_copy(
    is_compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_compiled:
        monkeypatch.setattr("rayclip.model.preprocess.is_available", lambda: False)
    letterbox = Resizing(20, "longest", fill=(1, 2, 3))
    kinds = [LARGE, SHORTER, letterbox, Resizing(30), LARGE]
    squares = Squares(kinds)
    frame = squares.of(RGB)
    for model, kind in enumerate(kinds):
        view = squares.view(frame, model)
        assert np.array_equal(view, resize(RGB, kind))
        assert np.shares_memory(view, frame)


def test_models_with_the_same_preprocessing_share_a_square_and_its_resizing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []

    def counted(*arguments: object) -> np.ndarray:
        made.append(arguments[1])
        return resize(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "resize", counted)
    squares = Squares([SHORTER, SQUASHED, SHORTER])
    frame = squares.of(RGB)
    assert made == [SHORTER, SQUASHED]
    assert frame.nbytes == squares.nbytes == 2 * 16 * 16 * 3
