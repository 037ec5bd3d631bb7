"""Where a long video is cut, so that several tasks decode it side by side."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple


class Segment(NamedTuple):
    """A part of a video, from one of its entry points to another.

    Attributes:
        since: pts of the first picture, in the stream's time base; None from the beginning on.
        until: pts of the first picture that is not in it; None to the end.
    """

    since: int | None = None
    until: int | None = None


WHOLE = Segment()


def inner_borders(duration_s: float, segment_s: float, most: int) -> list[float]:
    """The times between equal segments of about a length, in seconds; none where one is enough.

    Args:
        duration_s: of the video.
        segment_s: of a segment, at the least.
        most: segments.
    """
    segments = min(most, int(duration_s / segment_s))
    return [duration_s * number / segments for number in range(1, segments)]


def segments_between(entry_points: Iterable[int]) -> list[Segment]:
    """The segments that begin and end at these pts, from the beginning to the end of a video."""
    borders = [None, *sorted(set(entry_points)), None]
    return [Segment(*pair) for pair in pairwise(borders)]
