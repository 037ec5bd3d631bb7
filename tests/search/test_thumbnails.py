"""Pictures of videos, from processes that may die."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import shapes
from PIL import Image

from rayclip.media.frames import iter_frames
from rayclip.search.media_process import MediaPool
from rayclip.search.thumbnails import Thumbnails

FPS = Fraction(5)
HOSTILE = """
import ctypes
import rayclip.media.frames_at as module
from rayclip.media import watchdog

watchdog.LIBAV.__init__(0.5, 2**28, 2**29)
frames_at = module.frames_at

def hostile(source, *rest):
    for number, frame in enumerate(frames_at(source, *rest)):
        if number and "crash" in source:
            ctypes.string_at(0)
        if number and "hang" in source:
            with watchdog.LIBAV:
                ctypes.CDLL(None).pause()
        yield frame

module.frames_at = hostile
"""


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "shapes.mp4"
    shapes.write_video(path, [("red", "circle"), ("blue", "star")], width=64, height=48, fps=5)
    return path


@pytest.fixture
def thumbnails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Thumbnails]:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with closing(MediaPool(1)) as pool:
        yield Thumbnails(FPS, 32, {}, pool, tmp_path / "cache")
    assert not [*temporary.iterdir()], "the processes left files"


def test_pictures_show_the_frames_of_the_extraction(video: Path, thumbnails: Thumbnails) -> None:
    taken = dict(iter_frames(video, FPS))
    found = thumbnails.get(str(video), [400.0, 2600.0])
    assert found.error is None
    for time, jpeg in found.jpegs.items():
        picture = Image.open(io.BytesIO(jpeg))
        assert picture.size == (32, 24)
        expected = np.asarray(Image.fromarray(taken[time]).resize((32, 24)), np.float64)
        assert np.abs(np.asarray(picture, np.float64) - expected).mean() < 12


def test_pictures_are_cached_until_the_video_changes(video: Path, thumbnails: Thumbnails) -> None:
    first = thumbnails.get(str(video), [400.0])
    content = video.read_bytes()
    video.write_bytes(b"x" * len(content))
    os.utime(video, ns=(1, 1))
    assert thumbnails.get(str(video), [400.0]).error is not None
    video.write_bytes(content)
    assert thumbnails.get(str(video), [400.0]).jpegs.keys() == first.jpegs.keys()


def test_a_missing_or_broken_video_is_said(tmp_path: Path, thumbnails: Thumbnails) -> None:
    (tmp_path / "bad.mp4").write_text("nonsense")
    assert thumbnails.get(str(tmp_path / "gone.mp4"), [0.0]).error == "there is no such file"
    assert "not a container" in str(thumbnails.get(str(tmp_path / "bad.mp4"), [0.0]).error)


@pytest.mark.parametrize(("name", "reason"), [("crash", "fault"), ("hang", "no progress")])
def test_a_video_that_harms_its_process_costs_only_its_own_pictures(
    video: Path,
    tmp_path: Path,
    thumbnails: Thumbnails,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    reason: str,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HOSTILE)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    harmful = tmp_path / f"{name}.mp4"
    harmful.write_bytes(video.read_bytes())
    found = thumbnails.get(str(harmful), [0.0, 400.0])
    assert list(found.jpegs) == [0.0]
    assert reason in str(found.error).lower()
    assert thumbnails.get(str(video), [0.0]).error is None
