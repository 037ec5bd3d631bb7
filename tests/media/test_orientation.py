"""Pixels as a viewer sees them; that pictures are turned is in ``test_video.py``."""

from __future__ import annotations

import gc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from video_factories import numbered_frames, write_video

from rayclip.errors import BadVideo
from rayclip.media.frames import iter_frames
from rayclip.media.orientation import upright_rgb
from rayclip.media.video import open_video


@pytest.mark.parametrize("rate", [None, Fraction(5)], ids=["every-frame", "at-a-rate"])
def test_a_frame_is_gone_as_soon_as_nobody_holds_it(rate: Fraction | None, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(30), codec="libx264")
    gc.collect()
    gc.disable()  # frames that wait for it are a gigabyte where they are of 4K
    try:
        with open_video(path) as video:
            for shown in video.selected_frames(rate):
                shown.rgb()
            alive = [one for one in gc.get_objects() if type(one) is av.VideoFrame]
    finally:
        gc.enable()
    assert len(alive) <= 2


@pytest.mark.parametrize("matrix", ["YCgCo", "bt2020c", "chroma-derived-c", "ICtCp"])
def test_colours_of_a_kind_that_cannot_be_converted_are_taken_as_if_nothing_were_said(
    matrix: str, tmp_path: Path
) -> None:
    def converted(name: str, options: dict[str, str]) -> list[np.ndarray]:
        frames = numbered_frames(3)
        path = write_video(tmp_path / name, frames, codec="libx264", options=options)
        return [rgb for _, rgb in iter_frames(path)]

    odd = converted("odd.mp4", {"x264-params": f"colormatrix={matrix}"})
    np.testing.assert_array_equal(odd, converted("plain.mp4", {}))


def test_pixels_that_cannot_be_converted_are_an_error_of_their_video() -> None:
    frame = av.VideoFrame(16, 16, "y210be")
    with pytest.raises(BadVideo, match=r"its pixels \(y210be\) cannot be converted to RGB"):
        upright_rgb(frame)
