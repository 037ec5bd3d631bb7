"""Features of repeated frames."""

from __future__ import annotations

import numpy as np
import pytest

from rayclip.actors.pending_video import repeated
from rayclip.output.spool import SLICE

FEATURES = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize("repeats", [[1, 1, 1], [2, 0, 3], [0, 0, 0]])
def test_each_feature_is_repeated_as_often_as_its_frame(repeats: list[int]) -> None:
    blocks = [np.empty((0, 4), np.float32), *repeated(FEATURES, repeats)]
    assert np.array_equal(np.concatenate(blocks), np.repeat(FEATURES, repeats, axis=0))


def test_a_frame_that_is_shown_for_hours_never_takes_more_than_a_block() -> None:
    times = SLICE // FEATURES[0].nbytes
    blocks = [*repeated(FEATURES, [times, 5 * times, 1])]
    assert max(block.nbytes for block in blocks) <= SLICE
    assert sum(len(block) for block in blocks) == 6 * times + 1
    assert np.array_equal(blocks[0][-1], FEATURES[0])
    assert np.array_equal(blocks[-1][-1], FEATURES[2])
