"""Find the moments of a collection that fit texts and pictures best."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayclip.output.finished import scan_features
from rayclip.output.folder import FeatureFolder
from rayclip.output.rows import ScannedVideo
from rayclip.output.video_files import DamagedFile
from rayclip.search.curves import Curve, Scan, compare
from rayclip.search.spans import Span, find_spans


@dataclass(frozen=True, eq=False)
class Query:
    """What is searched for.

    Attributes:
        name: the text, or the name of the picture's file.
        vector: float32 ``[D]``, its feature, normalised.
    """

    name: str
    vector: NDArray[np.float32]


@dataclass(frozen=True)
class Score:
    """How well a frame fits a query.

    Attributes:
        cosine: of their features, -1 to 1. Its level depends on the model and the query.
        stands_out: how many standard deviations the cosine is above the mean of all frames.
    """

    cosine: float
    stands_out: float


@dataclass(frozen=True)
class Moment:
    """Consecutive frames of a video that fit a query.

    Attributes:
        query: the name of the query.
        video: the name of the video in the output folder.
        source: the path or URL of the video as the run got it; None if the folder does not say it.
        start_s: when the first of its frames is shown, in seconds from the start of the video.
        end_s: when the frame after the last one is shown.
        best_s: when the frame that fits best is shown.
        score: of that frame.
        scores: of that frame and each query, by name.
    """

    query: str
    video: str
    source: str | None
    start_s: float
    end_s: float
    best_s: float
    score: Score
    scores: dict[str, Score]


@dataclass(frozen=True)
class Found:
    """The answer to a search.

    Attributes:
        moments: the best of each query, ordered by how far they stand out.
        videos: the number of videos searched.
        frames: the number of their frames.
        damaged: files that were left out.
    """

    moments: list[Moment]
    videos: int
    frames: int
    damaged: list[DamagedFile]


def moments(
    folder: FeatureFolder,
    queries: Sequence[Query],
    top: int,
    wanted: Callable[[str], bool] = lambda video: True,
) -> Found:
    """Search every finished video of a folder, exactly and in bounded memory.

    Args:
        folder: the output folder of one model.
        queries: at least one, all with different names.
        top: how many moments to find for each query.
        wanted: whether a video, by its name in the folder, may be part of the answer.

    Raises:
        UsageError, RunStopped: the folder cannot be read.
    """
    damaged: list[DamagedFile] = []
    videos = _wanted(scan_features(folder, damaged.append), wanted)
    scan = compare(videos, np.stack([query.vector for query in queries]), top, damaged)
    return Found(best_moments(scan, queries, top), scan.videos, scan.frames, damaged)


def best_moments(scan: Scan, queries: Sequence[Query], top: int) -> list[Moment]:
    """Find the moments of a collection that was compared with queries.

    Files of times that turn out to be damaged are added to ``scan.damaged``.
    """
    found = []
    for column, query in enumerate(queries):
        spans = [
            (float(curve.cosines[span.best, column]), curve, span)
            for curve in scan.curves[column]
            for span in find_spans(curve.cosines[:, column], float(scan.mean[column]), top)
        ]
        spans.sort(key=lambda scored: -scored[0])
        for _, curve, span in spans[:top]:
            try:
                found.append(_moment(scan, queries, query.name, column, curve, span))
            except DamagedFile as error:
                scan.damaged.append(error)
    return sorted(found, key=lambda moment: -moment.score.stands_out)


def end_of(times_ms: NDArray[Any], frame: int) -> float:
    """When the next frame replaces this one, in ms; the last is shown as long as the one before."""
    if frame + 1 < len(times_ms):
        return float(times_ms[frame + 1])
    step = float(times_ms[-1] - times_ms[-2]) if len(times_ms) > 1 else 0.0
    return float(times_ms[-1]) + step


def _moment(
    scan: Scan, queries: Sequence[Query], name: str, column: int, curve: Curve, span: Span
) -> Moment:
    times_ms = curve.timestamps_ms()
    scores = {
        query.name: Score(float(cosine), float(stands_out))
        for query, cosine, stands_out in zip(
            queries,
            curve.cosines[span.best],
            (curve.cosines[span.best] - scan.mean) / np.maximum(scan.deviation, 1e-9),
            strict=True,
        )
    }
    return Moment(
        name,
        curve.video,
        curve.source,
        float(times_ms[span.first]) / 1000,
        end_of(times_ms, span.last) / 1000,
        float(times_ms[span.best]) / 1000,
        scores[queries[column].name],
        scores,
    )


def _wanted(
    videos: Iterator[ScannedVideo], wanted: Callable[[str], bool]
) -> Iterator[ScannedVideo]:
    return (video for video in videos if wanted(video.name))
