"""Truncated and corrupted files give the frames of a plain decoder, or one error.

Nothing may hang: a hang would show in the duration of the suite.
"""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from plain_decoder import digest_of, rgb_of
from video_factories import textured_frames, write_video

from rayclip.errors import BadVideo
from rayclip.media.container import open_stream, read_packets
from rayclip.media.decoding import decode_all, selected_frames, timed_frames
from rayclip.media.frame_choice import FrameChoice
from rayclip.media.frames import iter_frames
from rayclip.media.sampling import Clock, frame_rule

Frames = list[tuple[float, str]]

RATES = (None, Fraction(5))
CUTS = 20  # per file and rate
FLIPS = 12
FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "index-first": ("a.mp4", {"codec": "libx264", "muxing": {"movflags": "faststart"}}),
    "index-last": ("a.mp4", {"codec": "libx264"}),
    "matroska": ("a.mkv", {"codec": "libx264"}),
    "ts": ("a.ts", {"codec": "libx264"}),
    "webm": ("a.webm", {"codec": "libvpx-vp9"}),
}
OPTIONS = {
    "libx264": {"bf": "2", "g": "10", "sc_threshold": "0", "threads": "1"},
    "libvpx-vp9": {"g": "10", "cpu-used": "8", "deadline": "realtime"},
}


@pytest.fixture(scope="module", params=FILES)
def content(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a valid file of two seconds."""
    name, how = FILES[request.param]
    if how["codec"] not in av.codecs_available:
        pytest.skip(f"this libav cannot encode {how['codec']}")
    path: Path = tmp_path_factory.mktemp("broken") / name
    write_video(path, textured_frames(50, 64, 48), fps=25, options=OPTIONS[how["codec"]], **how)
    return path.read_bytes()


def decode_plainly(content: bytes, fps: Fraction | None) -> Frames | None:
    """The frames from decoding everything; None if it is not a video."""
    try:
        with open_stream(io.BytesIO(content), {}) as (container, stream):
            assert stream.time_base is not None
            start_us = container.start_time or 0
            rule = frame_rule(FrameChoice(fps), Clock(stream.time_base, start_us))
            rate = stream.guessed_rate or stream.average_rate or Fraction(25)
            decoded = decode_all(stream.codec_context, read_packets(container, stream))
            shown = list(selected_frames(timed_frames(decoded, stream.time_base, rate), rule))
            if not shown:
                return None
            found = [
                (ms, digest_of(rgb_of(selected.frame)))
                for selected in shown
                for ms in selected.timestamps_ms
            ]
            return found or [(0.0, digest_of(rgb_of(shown[0].frame)))]
    except BadVideo:
        return None


def decode(content: bytes, fps: Fraction | None) -> Frames | None:
    try:
        return [(ms, digest_of(rgb)) for ms, rgb in iter_frames(io.BytesIO(content), fps)]
    except BadVideo:
        return None


@pytest.mark.parametrize("fps", RATES, ids=["native", "5"])
def test_a_truncated_file_gives_all_its_frames(content: bytes, fps: Fraction | None) -> None:
    for end in np.random.default_rng(len(content)).integers(1, len(content), CUTS):
        part = content[:end]
        assert decode(part, fps) == decode_plainly(part, fps), end


def test_a_truncated_file_loses_only_its_last_ticks(content: bytes) -> None:
    fps = Fraction(5)
    whole = decode(content, fps)
    assert whole is not None
    for end in np.random.default_rng(1).integers(len(content) // 2, len(content), CUTS // 2):
        found = decode(content[:end], fps) or []
        ticks = [ms for ms, _ in found]
        assert ticks == [ms for ms, _ in whole][: len(ticks)], end
        assert found[:-2] == whole[: len(found)][:-2], end  # the last picture may be incomplete


@pytest.mark.parametrize("fps", RATES, ids=["native", "5"])
def test_a_corrupted_file_gives_the_ticks_of_a_plain_decoder(
    content: bytes, fps: Fraction | None
) -> None:
    """Only ticks are compared, since not every decoder notices damage."""
    rng = np.random.default_rng(len(content))
    for place in rng.integers(0, len(content), FLIPS // 2):
        changed = bytearray(content)
        changed[place] ^= int(rng.integers(1, 256))
        found, plain = decode(bytes(changed), fps), decode_plainly(bytes(changed), fps)
        if fps is None or found is None or plain is None:
            assert found == plain, place
        else:
            assert [ms for ms, _ in found] == [ms for ms, _ in plain], place
