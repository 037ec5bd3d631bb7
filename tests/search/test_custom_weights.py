"""Queries of a custom model are encoded as the frames were."""

from __future__ import annotations

from pathlib import Path

import checkpoints
import numpy as np
import pytest

import rayclip
from rayclip.search.queries import QueryEncoder


@pytest.mark.parametrize("activation", ["gelu", "quickgelu"])
def test_texts_are_encoded_with_the_activation_of_the_run(activation: str, tmp_path: Path) -> None:
    weights = str(checkpoints.save_state_dict(checkpoints.small_vit(), tmp_path / "a.pt"))
    run = {"model_name": "custom", "activation": activation}
    (query,) = QueryEncoder(run, weights, {}).texts(["a red circle"])
    model = rayclip.load_encoder("custom", weights, "cpu", activation=activation)  # type: ignore[arg-type]
    (expected,) = model.encode_text(["a red circle"])
    assert np.allclose(query.vector, expected / np.linalg.norm(expected), atol=1e-6)
