"""Parts of videos as files."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import shapes
from numpy.typing import NDArray

from rayclip.errors import BadVideo
from rayclip.media.clips import cut

FPS = 10


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes of 2 s; x264 puts a keyframe at each change."""
    path = tmp_path_factory.mktemp("videos") / "scenes.mp4"
    scenes = [("red", "circle"), ("blue", "square"), ("yellow", "star")]
    shapes.write_video(path, scenes, width=64, height=48, fps=FPS)
    return path


def pictures(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_part_that_begins_with_a_keyframe_is_copied(video: Path, tmp_path: Path) -> None:
    assert cut(str(video), str(tmp_path / "part.mp4"), 4.0, 6.0)
    assert np.array_equal(pictures(tmp_path / "part.mp4"), pictures(video)[40:60])


def test_another_part_is_encoded_again(video: Path, tmp_path: Path) -> None:
    assert not cut(str(video), str(tmp_path / "part.mp4"), 2.5, 3.5)
    found = np.array(pictures(tmp_path / "part.mp4"), np.float64)
    expected = np.array(pictures(video)[25:35], np.float64)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 6


def test_a_codec_that_mp4_cannot_hold_is_encoded_again(tmp_path: Path) -> None:
    source = tmp_path / "raw.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("ffv1", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(20):
            rgb = np.full((48, 64, 3), number * 10, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode())
    cut(str(source), str(tmp_path / "part.mp4"), 0.5, 1.0)
    shown = [int(picture.mean()) for picture in pictures(tmp_path / "part.mp4")]
    assert np.allclose(shown, [50, 60, 70, 80, 90], atol=3)


def test_a_part_of_nothing_leaves_no_file(video: Path, tmp_path: Path) -> None:
    with pytest.raises(BadVideo):
        cut(str(video), str(tmp_path / "part.mp4"), 99.0, 100.0)
    assert list(tmp_path.iterdir()) == []
