"""Frames at given times are those that the extraction took."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import shapes
from numpy.typing import NDArray

from rayclip.media.frames import iter_frames
from rayclip.media.frames_at import frames_at
from rayclip.media.keyframes import VideoPacket
from rayclip.media.packets import PacketReader
from rayclip.media.segments import WHOLE, Segment

SCENES = [("red", "circle"), ("blue", "square"), ("yellow", "star")] * 5
Frames = dict[float, NDArray[np.uint8]]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 s at 25/3 frames/s, with a keyframe at each change of the scene."""
    path = tmp_path_factory.mktemp("videos") / "scenes.mp4"
    shapes.write_video(path, SCENES, width=64, height=48, fps=Fraction(25, 3))
    return path


@pytest.mark.parametrize("fps", [None, Fraction(2), Fraction(7, 3)])
def test_the_frames_are_those_of_the_extraction(video: Path, fps: Fraction | None) -> None:
    taken: Frames = dict(iter_frames(video, fps))
    times = list(taken)[::11]
    found: Frames = dict(frames_at(video, times[::-1], fps))
    assert list(found) == times
    assert all(np.array_equal(found[time], taken[time]) for time in times)


def test_a_time_between_two_frames_shows_the_first(video: Path) -> None:
    taken: Frames = dict(iter_frames(video))
    (shown,) = [time for time in taken if abs(time - 1200) < 1e-6]
    assert np.array_equal(dict(frames_at(video, [1250.0]))[1250.0], taken[shown])


def test_late_frames_are_decoded_from_a_random_access_point(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = []
    packets = PacketReader.packets

    def tracking(self: PacketReader, segment: Segment = WHOLE) -> Iterator[VideoPacket]:
        segments.append(segment)
        return packets(self, segment)

    monkeypatch.setattr(PacketReader, "packets", tracking)
    assert list(dict(frames_at(video, [25_000.0], Fraction(2)))) == [25_000.0]
    assert [segment.since is not None for segment in segments] == [True]


@pytest.mark.parametrize("start", [0.5, 11.3])
def test_the_frames_are_those_of_an_extraction_from_a_later_start_on(
    video: Path, start: float
) -> None:
    taken: Frames = dict(iter_frames(video, "2.5", start=start))
    found: Frames = dict(frames_at(video, list(taken), Fraction(5, 2)))
    assert list(found) == list(taken)
    assert all(np.array_equal(found[time], taken[time]) for time in taken)


def test_a_clip_that_no_tick_shows_has_its_first_frame_at_0_ms(tmp_path: Path) -> None:
    path = tmp_path / "short.mp4"
    shapes.write_video(path, SCENES[:1], width=64, height=48, fps=25, seconds_per_scene=0.08)
    taken: Frames = dict(iter_frames(path, 1))
    assert list(taken) == [0.0]
    assert np.array_equal(dict(frames_at(path, [0.0], Fraction(1)))[0.0], taken[0.0])


def test_a_time_after_the_end_shows_nothing(video: Path) -> None:
    assert list(dict(frames_at(video, [1000.0, 99_000.0]))) == [1000.0]
