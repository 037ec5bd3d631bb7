"""Merge the frames that fit a query into spans."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FIT = 0.75
"""How far from the collection's mean to its best frame's cosine the frames of a span are, at least.
On generated videos, 0.7 to 0.8 finds all bounds, and 0.5 joins neighbouring scenes."""

MAX_GAP = 1  # frames in a row that do not fit and are part of a span all the same


class Span(NamedTuple):
    """Consecutive frames of one video, by number.

    Attributes:
        first: the first frame.
        last: the last frame, inclusive.
        best: the frame with the highest cosine.
    """

    first: int
    last: int
    best: int


def find_spans(cosines: NDArray[np.floating], mean: float, most: int) -> list[Span]:
    """Find the spans of one video that fit a query best, best first.

    A span grows from its best frame in both directions, over frames that are at least :data:`FIT`
    of the way from the mean to the best cosine. Spans do not overlap. Each best frame is a local
    maximum: the slopes beside a span are no spans.

    Args:
        cosines: float ``[T]``, of each frame and the query.
        mean: of all cosines of the collection. Frames at or below it fit nothing.
        most: the maximum number of spans.
    """
    found: list[Span] = []
    taken = np.zeros(len(cosines), np.bool_)
    for best in map(int, np.argsort(-cosines, kind="stable")):
        if len(found) == most or not cosines[best] > mean:
            break
        if taken[best] or not _is_peak(cosines, best):
            continue
        fits = (cosines >= mean + FIT * (cosines[best] - mean)) & ~taken
        first, last = best - _reach(fits[best::-1]), best + _reach(fits[best:])
        taken[first : last + 1] = True
        found.append(Span(first, last, best))
    return found


def _is_peak(cosines: NDArray[np.floating], frame: int) -> bool:
    neighbours = cosines[max(0, frame - 1) : frame + 2]
    return bool(cosines[frame] >= neighbours.max())


def _reach(fits: NDArray[np.bool_]) -> int:
    """How far from its first frame a span reaches: up to the first gap that is too long."""
    places = np.flatnonzero(fits)
    wide = np.flatnonzero(np.diff(places) > MAX_GAP + 1)
    return int(places[wide[0]] if len(wide) else places[-1])
