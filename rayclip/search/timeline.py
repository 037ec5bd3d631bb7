"""A video along its time: thumbnails, and the curve of each text."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CURVE_POINTS = 400  # more than a screen shows apart


def spread(times_ms: NDArray[np.float64], number: int) -> list[float]:
    """Choose frames that are evenly spaced: the middles of equal parts, each once."""
    count = min(number, len(times_ms))
    return [float(times_ms[(2 * k + 1) * len(times_ms) // (2 * count)]) for k in range(count)]


def points(
    times_ms: NDArray[np.float64], scores: NDArray[np.floating], low: float, high: float
) -> list[tuple[float, float]]:
    """Return a curve in a square of 1000 x 1000, from the top left.

    Of more than :data:`CURVE_POINTS` frames, the highest of each part is shown: no peak is lost.

    Args:
        times_ms: float ``[T]``.
        scores: float ``[T]``.
        low, high: the scores at the bottom and the top.
    """
    parts = np.array_split(np.arange(len(times_ms)), min(CURVE_POINTS, len(times_ms)))
    frames = [int(part[np.argmax(scores[part])]) for part in parts]
    if len(frames) == 1:  # a line needs two points
        frames *= 2
    end = max(float(times_ms[-1]), 1e-9)
    scale = max(high - low, 1e-9)
    across = [round(1000 * float(times_ms[frame]) / end, 1) for frame in frames]
    heights = np.clip((scores[frames] - low) / scale, 0, 1).tolist()
    return [(x, round(1000 * (1 - height), 1)) for x, height in zip(across, heights, strict=True)]


def clock(seconds: float) -> str:
    """``0:07.2`` or ``1:02:04.0``: tenths, so that frames can be told apart."""
    tenths = math.floor(seconds * 10 + 0.5)
    minutes, rest = divmod(tenths, 600)
    hours, minute = divmod(minutes, 60)
    start = f"{hours}:{minute:02}" if hours else f"{minute}"
    return f"{start}:{rest // 10:02}.{rest % 10}"


def polyline(curve: Sequence[tuple[float, float]]) -> str:
    """Return the value of ``points`` of an SVG polyline."""
    return " ".join(f"{x:g},{y:g}" for x, y in curve)
