"""Conversion to RGB; rotation is tested in ``test_video.py``."""

from __future__ import annotations

import gc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from video_factories import numbered_frames, write_video

from rayclip.errors import BadVideo
from rayclip.media.frame_choice import FrameChoice
from rayclip.media.frames import iter_frames
from rayclip.media.orientation import upright_rgb
from rayclip.media.video import open_video


@pytest.mark.parametrize("rate", [None, Fraction(5)], ids=["every-frame", "at-a-rate"])
def test_frames_are_freed_without_garbage_collection(rate: Fraction | None, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(30), codec="libx264")
    gc.disable()  # 4K frames that wait for it would take a gigabyte
    gc.freeze()  # leaves what is older out of get_objects: millions in a whole suite
    try:
        with open_video(path) as video:
            for shown in video.selected_frames(FrameChoice(rate)):
                shown.rgb()
            alive = [item for item in gc.get_objects() if type(item) is av.VideoFrame]
    finally:
        gc.unfreeze()
        gc.enable()
    assert len(alive) <= 2


@pytest.mark.parametrize("matrix", ["YCgCo", "bt2020c", "chroma-derived-c", "ICtCp"])
def test_unsupported_colour_matrices_are_treated_as_unspecified(
    matrix: str, tmp_path: Path
) -> None:
    def converted(name: str, options: dict[str, str]) -> list[np.ndarray]:
        frames = numbered_frames(3)
        path = write_video(tmp_path / name, frames, codec="libx264", options=options)
        return [rgb for _, rgb in iter_frames(path)]

    odd = converted("odd.mp4", {"x264-params": f"colormatrix={matrix}"})
    np.testing.assert_array_equal(odd, converted("plain.mp4", {}))


def test_an_unsupported_pixel_format_is_a_bad_video() -> None:
    frame = av.VideoFrame(16, 16, "y210be")
    with pytest.raises(BadVideo, match=r"its pixels \(y210be\) cannot be converted to RGB"):
        upright_rgb(frame)
