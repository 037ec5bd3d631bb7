"""Compare every frame of a folder with queries, and keep the curves of the best videos."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rayclip.output.rows import ScannedVideo
from rayclip.output.video_files import DamagedFile


@dataclass(frozen=True, eq=False)
class Curve:
    """The cosines of one video.

    Attributes:
        video: its name in the folder.
        source: the input path or URL; None if the folder does not say it.
        cosines: float32 ``[T, Q]``, of each frame and query.
        timestamps_ms: reads float64 ``[T]``; may raise
            :class:`~rayclip.output.video_files.DamagedFile`.
    """

    video: str
    source: str | None
    cosines: NDArray[np.float32]
    timestamps_ms: Callable[[], NDArray[np.float64]]


@dataclass
class Scan:
    """The result of comparing a collection with Q queries.

    Attributes:
        videos: the number of videos.
        frames: the number of their frames.
        mean: float64 ``[Q]``, of the cosines of all frames.
        deviation: float64 ``[Q]``, their standard deviation.
        curves: for each query, those of the videos with its highest cosines, best first.
        damaged: files that were left out.
    """

    videos: int
    frames: int
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    curves: list[list[Curve]]
    damaged: list[DamagedFile] = field(default_factory=list)


def compare(
    videos: Iterable[ScannedVideo],
    queries: NDArray[np.float32],
    keep: int,
    damaged: list[DamagedFile],
) -> Scan:
    """Compare every frame with every query.

    In memory are one block of features and, for each query, the curves of ``keep`` videos: no other
    video can have one of its ``keep`` best moments.

    Args:
        videos: from :func:`~rayclip.output.finished.scan_features`.
        queries: float32 ``[Q, D]``, normalised.
        keep: how many videos to keep for each query.
        damaged: receives files that are damaged; they are left out.
    """
    comparison = _Comparison(queries)
    total, squares = np.zeros(len(queries)), np.zeros(len(queries))
    count = frames = 0
    best: list[list[tuple[float, int, Curve]]] = [[] for _ in queries]
    for video in videos:
        try:
            parts = [comparison.cosines(block) for block in video.blocks]
        except DamagedFile as error:
            damaged.append(error)
            continue
        cosines = np.concatenate(parts)
        if not np.isfinite(cosines.sum(axis=0)).all():
            np.nan_to_num(cosines, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        count += 1
        frames += len(cosines)
        total += cosines.sum(axis=0, dtype=np.float64)
        squares += np.einsum("tq,tq->q", cosines, cosines, dtype=np.float64)
        curve = Curve(video.name, video.source, cosines, video.timestamps_ms)
        for heap, highest in zip(best, cosines.max(axis=0).tolist(), strict=True):
            if len(heap) < keep:
                heapq.heappush(heap, (highest, -count, curve))
            elif highest > heap[0][0]:
                heapq.heapreplace(heap, (highest, -count, curve))
    mean = total / max(frames, 1)
    deviation = np.sqrt(np.maximum(squares / max(frames, 1) - mean**2, 0.0))
    curves = [[curve for *_, curve in sorted(heap, reverse=True)] for heap in best]
    return Scan(count, frames, mean, deviation, curves, damaged)


class _Comparison:
    """Compares blocks of features with queries; new memory for each would take most of the time."""

    def __init__(self, queries: NDArray[np.float32]) -> None:
        self._by_column = np.ascontiguousarray(queries.T)
        self._buffer = np.empty((0, queries.shape[1]), np.float32)

    def cosines(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return float32 ``[n, Q]``; 0 for features of zeros. What is not finite stays so.

        Args:
            features: float32 or float16 ``[n, D]``.
        """
        rows = self._as_float32(features)
        # twice as fast as einsum: a dot product of BLAS for each row
        squares: NDArray[np.float32] = np.matmul(rows[:, None, :], rows[:, :, None])[:, 0]
        squares[squares == 0] = 1.0
        cosines: NDArray[np.float32] = rows @ self._by_column
        cosines /= np.sqrt(squares)
        return cosines

    def _as_float32(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        if features.dtype == np.float32:
            return features.view()
        if len(self._buffer) < len(features):
            self._buffer = np.empty(features.shape, np.float32)
        rows = self._buffer[: len(features)]
        np.copyto(rows, features)
        return rows
