"""Divide a long video into segments that several tasks decode in parallel."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple


class Segment(NamedTuple):
    """A part of a video between two random access points.

    Attributes:
        since: pts of the first picture, in the stream's time base; None for the beginning.
        until: pts of the first picture after the segment; None for the end.
    """

    since: int | None = None
    until: int | None = None


WHOLE = Segment()


def inner_boundaries(duration_s: float, segment_s: float, max_segments: int) -> list[float]:
    """Boundaries between equal segments, in seconds from the start; none if one segment is enough.

    Args:
        duration_s: duration of the video.
        segment_s: minimum duration of a segment.
        max_segments: maximum number of segments.
    """
    segments = min(max_segments, int(duration_s / segment_s))
    return [duration_s * number / segments for number in range(1, segments)]


def split_at(boundaries: Iterable[int]) -> list[Segment]:
    """Split a whole video into segments at these pts."""
    borders = [None, *sorted(set(boundaries)), None]
    return [Segment(*pair) for pair in pairwise(borders)]
