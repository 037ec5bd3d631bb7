"""Which frames of a video the rows of a feature array show.

The features tell: a row shows the frame of the video whose own features are nearest. This holds for
any program that computes them with the same model, also if it resizes a little differently.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rayclip
from rayclip.model.preprocess import Resizing, resize

Features = NDArray[np.floating[Any]]
CHUNK_FRAMES = 64


@dataclass(frozen=True)
class Expected:
    """All frames of a video, and the right ones.

    Attributes:
        times_ms: float64 ``[N]``, of all frames.
        features: float32 ``[N, D]``, of all frames.
        right: the frame numbers that rayclip's rule selects, one per tick.
    """

    times_ms: NDArray[np.float64]
    features: Features
    right: NDArray[np.intp]

    def offsets_ms(self, features: Features) -> NDArray[np.float64]:
        """How far in the video each row is from the right frame, in ms; at most one per tick."""
        mean = self.features.mean(axis=0)  # with random weights it outweighs the differences
        ours, theirs = _unit(self.features - mean), _unit(features[: len(self.right)] - mean)
        shown = (theirs @ ours.T).argmax(axis=1)
        right = self.right[: len(shown)]
        offsets: NDArray[np.float64] = np.abs(self.times_ms[shown] - self.times_ms[right])
        return offsets


def expected_frames(video: Path, fps: int, model: rayclip.ClipModel) -> Expected:
    """Decode a video as a whole, and find the right frames by their pixels."""
    numbers: dict[int, int] = {}
    times_ms: list[float] = []
    features = []
    frames = _frames(video, model.n_px)
    while chunk := list(islice(frames, CHUNK_FRAMES)):
        for timestamp_ms, pixels, _ in chunk:
            numbers.setdefault(pixels, len(times_ms))
            times_ms.append(timestamp_ms)
        features.append(model.encode_image([square for _, _, square in chunk]))
    selected = rayclip.iter_frames(str(video), extraction_fps=fps)
    right = [numbers[hash(rgb.tobytes())] for _, rgb in selected]
    return Expected(np.array(times_ms), np.concatenate(features), np.array(right))


def _frames(video: Path, n_px: int) -> Iterator[tuple[float, int, NDArray[np.uint8]]]:
    """The time of each frame, the hash of its pixels, and its square."""
    for timestamp_ms, rgb in rayclip.iter_frames(str(video)):
        yield timestamp_ms, hash(rgb.tobytes()), resize(rgb, Resizing(n_px))


def _unit(features: Features) -> Features:
    lengths: Features = np.linalg.norm(features, axis=1, keepdims=True)
    return features / lengths
