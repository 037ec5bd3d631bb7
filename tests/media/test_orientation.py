"""Pixels as a viewer sees them; that pictures are turned is in ``test_video.py``."""

from __future__ import annotations

import gc
from fractions import Fraction
from pathlib import Path

import av
import pytest
from makers import numbered_frames, write_video

from rayclip.media.orientation import upright_rgb
from rayclip.media.video import open_video


@pytest.mark.parametrize("rate", [None, Fraction(5)], ids=["every-frame", "at-a-rate"])
def test_a_frame_is_gone_as_soon_as_nobody_holds_it(rate: Fraction | None, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(30), codec="libx264")
    gc.collect()
    gc.disable()  # frames that wait for it are a gigabyte where they are of 4K
    try:
        with open_video(path) as video:
            for shown in video.shown_frames(rate):
                upright_rgb(shown.frame)
            alive = [one for one in gc.get_objects() if type(one) is av.VideoFrame]
    finally:
        gc.enable()
    assert len(alive) <= 2
