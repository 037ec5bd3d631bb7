"""Decode the frames that an extraction took at given times, near random access points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rayclip.media.frame_choice import MICROSECONDS, FrameChoice
from rayclip.media.gop import Irregular
from rayclip.media.image_folder import ImageFolder, ImageSequence
from rayclip.media.sampling import Clock, Shown, Span, TickGrid
from rayclip.media.source import VideoSource
from rayclip.media.video import Video, open_video

NEAR_MS = 10_000.0  # times closer than this are decoded in one pass
ROUNDING = Fraction(1, 1000)  # of a tick: times are floats


class Place(NamedTuple):
    """Where a time is among the pictures of a video.

    Attributes:
        time_ms: the time.
        place: its place.
        place_of: the place of a pts; it does not decrease.
    """

    time_ms: float
    place: int
    place_of: Callable[[int], int]


class AtTimes:
    """Shows the picture that is on the screen at each of some times, like the ticks of a rate."""

    def __init__(self, times_ms: Sequence[float], fps: Fraction | None, clock: Clock) -> None:
        """Prepare a rule.

        Args:
            times_ms: in ms from the container's start, in ascending order.
            fps: of the extraction that took frames at these times, from any start on; None if it
                took them at their own times.
            clock: of the video.
        """
        since_ms = times_ms[0] - (1000 / float(fps) if fps else 0)
        since = clock.pts_at(int(since_ms * 1000)) if times_ms[0] > NEAR_MS else None
        self.span = Span(since, None, since)
        self._places = [_place(time, fps, clock) for time in times_ms]

    def timestamps_ms(self, shown: Shown) -> tuple[float, ...]:
        return tuple(
            time
            for time, place, place_of in self._places
            if place_of(shown.begin) <= place < place_of(shown.end)
        )

    def stand_in_ms(self, shown: Shown) -> float | None:
        """The first picture is at 0 ms if an extraction showed no other."""
        return 0.0 if self._places[0].time_ms == 0.0 else None


def _place(time_ms: float, fps: Fraction | None, clock: Clock) -> Place:
    time = Fraction(time_ms)
    if fps is None:
        start = Fraction(clock.start_us, MICROSECONDS)
        units = (time / 1000 + start) / clock.time_base
        return Place(time_ms, int(units + ROUNDING), lambda pts: pts)
    tick = int(time * fps / 1000 + ROUNDING)
    rest_us = round((time - tick / fps * 1000) * 1000)  # of extractions from a later start on
    choice = FrameChoice(fps=fps, start=max(rest_us, 0) / MICROSECONDS)
    return Place(time_ms, tick, TickGrid(fps, choice, clock).tick)


def frames_at(
    source: VideoSource | ImageFolder,
    times_ms: Sequence[float],
    extraction_fps: Fraction | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Yield the frames that an extraction took at these times, in ascending order.

    Args:
        source: a local path, an fsspec URL, a binary file object that can seek or a folder of
            images.
        times_ms: in ms from the container's start.
        extraction_fps: of the extraction; None gives the frame that is on the screen.
        storage_options: passed to fsspec for URLs.

    Yields:
        ``(time_ms, rgb)``, with uint8 ``[height, width, 3]``, upright and in full size. Times at
        which the video shows nothing are left out.

    Raises:
        BadVideo, VideoError: the video cannot be opened, decoded or read.
    """
    for group in _groups(sorted(set(times_ms))):
        given: set[float] = set()
        try:
            for time, rgb in _frames_of(source, group, extraction_fps, storage_options, False):
                given.add(time)
                yield time, rgb
        except Irregular:  # decoding cannot start in the middle
            rest = [time for time in group if time not in given]
            yield from _frames_of(source, rest, extraction_fps, storage_options, True)


@contextmanager
def open_for_times(
    source: VideoSource | ImageFolder, storage_options: Mapping[str, Any] | None
) -> Iterator[Video | ImageSequence]:
    """Open a video or a folder of images for :class:`AtTimes`; raises as :func:`frames_at`."""
    if isinstance(source, ImageFolder):
        yield ImageSequence(source, storage_options or {})
        return
    with open_video(source, storage_options) as video:
        yield video


def _groups(times_ms: Sequence[float]) -> Iterator[list[float]]:
    group: list[float] = []
    for time in times_ms:
        if group and time - group[-1] > NEAR_MS:
            yield group
            group = []
        group.append(time)
    if group:
        yield group


def _frames_of(
    source: VideoSource | ImageFolder,
    times_ms: Sequence[float],
    fps: Fraction | None,
    storage_options: Mapping[str, Any] | None,
    by_decoding: bool,
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    left = set(times_ms)
    stand_in = None
    with open_for_times(source, storage_options) as video:
        rule = AtTimes(times_ms, fps, video.clock)
        for selected in video.frames_of(rule, by_decoding):
            if stand_in is None and selected.stand_in_ms is not None:
                stand_in = selected.stand_in_ms, np.ascontiguousarray(selected.rgb())
            found = left.intersection(selected.timestamps_ms)
            if found:
                rgb = np.ascontiguousarray(selected.rgb())
                yield from ((time, rgb) for time in sorted(found))
                left -= found
                if not left:
                    return
    if stand_in is not None and stand_in[0] in left:
        yield stand_in
