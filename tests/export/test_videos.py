"""Windows, normalisation and conversion, block by block, compared with plain arithmetic."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sources import pooled

from rayclip.export.options import ExportOptions
from rayclip.export.videos import ExportedVideo, window_starts
from rayclip.output.rows import StoredVideo


def exported(clip: np.ndarray, **options: object) -> ExportedVideo:
    stored = StoredVideo("cat", clip, np.arange(len(clip)) * 40.0, 25.0)
    return ExportedVideo(stored, "cat", ExportOptions("npz", **options))  # type: ignore[arg-type]


@given(
    st.integers(1, 40),
    st.integers(1, 50),
    st.integers(1, 50),
    st.sampled_from(["mean", "max"]),
    st.integers(1, 300),
)
def test_windows_are_those_of_plain_arithmetic(
    frames: int, window: int, stride: int, pool: str, block_bytes: int
) -> None:
    clip = np.random.default_rng(frames).normal(size=(frames, 3)).astype(np.float32)
    video = exported(clip, window=window, stride=stride, pool=pool)
    with (
        patch("rayclip.export.videos.SLICE", block_bytes),
        patch("rayclip.output.spool.SLICE", block_bytes),
    ):
        rows = np.concatenate(list(video.blocks()))
    expected, starts = pooled(clip, window, stride, pool)
    assert video.starts.tolist() == starts
    assert video.timestamps_ms.tolist() == [start * 40.0 for start in starts]
    assert video.shape == rows.shape == expected.shape
    assert video.size == rows.nbytes
    np.testing.assert_allclose(rows, expected, rtol=1e-6, atol=1e-7)


@given(st.integers(1, 100), st.integers(1, 30), st.integers(1, 30))
def test_each_feature_is_in_a_window_unless_the_stride_leaves_it_out(
    frames: int, window: int, stride: int
) -> None:
    starts = window_starts(frames, window, stride)
    covered = {frame for start in starts for frame in range(start, start + window)}
    assert covered.issuperset(range(frames)) or stride > window
    assert starts[-1] < frames
    assert all(start + window < frames for start in starts[:-1])  # only the last may be cut short


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_normalised_rows_have_length_1_and_zeros_stay(dtype: str) -> None:
    clip = np.array([[3, 4], [0, 0], [6e4, 6e4], [1e-7, 0]], dtype)
    rows = np.concatenate(list(exported(clip, normalize=True).blocks()))
    assert rows.dtype == dtype
    np.testing.assert_allclose(np.linalg.norm(rows.astype(float), axis=1), [1, 0, 1, 1], rtol=1e-3)


def test_what_is_not_changed_is_bit_equal() -> None:
    clip = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float16)
    assert np.concatenate(list(exported(clip).blocks())).tobytes() == clip.tobytes()
