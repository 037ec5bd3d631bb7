"""Memory taken by crafted files, measured in separate processes."""

from __future__ import annotations

import os
from pathlib import Path

import oversized_videos
import pytest

from rayclip.media.watchdog import private_bytes

MB = 2**20
GB2 = 2**31
ENDED = os.EX_TEMPFAIL

needs_proc = pytest.mark.skipif(not private_bytes(), reason="the system has no /proc")

CLAIMS: dict[str, oversized_videos.Make] = {
    "an-index-of-a-billion-pictures.mp4": lambda: oversized_videos.index_with_samples(10**9),
    "a-table-of-a-billion-sizes.mp4": lambda: oversized_videos.index_with_samples(10**9, size=0),
    "a-run-of-a-billion-pictures.mp4": lambda: oversized_videos.fragments_with_samples(10**9, 1),
    "a-box-of-a-terabyte.mp4": oversized_videos.a_box_of_a_terabyte,
    "a-codec-header-of-a-terabyte.mkv": oversized_videos.a_codec_header_of_a_terabyte,
    "pictures-of-131072x131072.mkv": oversized_videos.pictures_of_sixteen_billion_pixels,
    "65535x65535.gif": lambda: oversized_videos.a_gif(65535, 2),
    "16000x16000.gif": lambda: oversized_videos.a_gif(16000, 2),
    "16000x16000.png": lambda: oversized_videos.a_png_of_sixteen_bits(16000),
}


@needs_proc
def test_claimed_sizes_take_no_memory(tmp_path: Path) -> None:
    for name, make in CLAIMS.items():
        (tmp_path / name).write_bytes(make())
    ended = oversized_videos.decode_in_process(*(tmp_path / name for name in CLAIMS))
    assert len(ended) == len(CLAIMS)
    for name, one in zip(CLAIMS, ended, strict=True):
        assert (one.status, one.frames) == (0, 0), name
        assert one.code is not None, name
        assert one.peak < 200 * MB, name


BOMBS: dict[str, tuple[str, oversized_videos.Make]] = {
    "200 million pictures without bytes": (
        "a.mp4",
        lambda: oversized_videos.fragments_with_samples(10**6, 200),
    ),
    "an index of 50 million pictures": (
        "a.mp4",
        lambda: oversized_videos.index_with_samples(50_000_000),
    ),
    "pictures of 8192 x 8192": ("a.gif", lambda: oversized_videos.a_gif(oversized_videos.SIDE, 1)),
    "400 pictures in a packet": (
        "a.mkv",
        lambda: oversized_videos.many_pictures_in_a_packet(400, 4096),
    ),
}


@needs_proc
@pytest.mark.parametrize("name", BOMBS)
def test_no_file_makes_a_process_grow_without_limit(name: str, tmp_path: Path) -> None:
    file, make = BOMBS[name]
    (tmp_path / file).write_bytes(make())
    assert (tmp_path / file).stat().st_size < 10 * MB
    (ended,) = oversized_videos.decode_in_process(tmp_path / file)
    if ended.status == 0:
        assert ended.frames or ended.code == "too_much_memory"
    else:
        assert ended.status == ENDED
    # Below 2 GiB if a core is free for the check; otherwise libav may double a table before it.
    assert 500 * MB < ended.peak < 2 * GB2, "what is no bomb proves nothing"


@needs_proc
@pytest.mark.parametrize(
    ("name", "make", "max_growth", "max_memory", "status", "code"),
    [
        ("a.gif", lambda: oversized_videos.a_gif(2048, 3), GB2, GB2, 0, None),
        ("a.gif", lambda: oversized_videos.a_gif(2048, 99), 8 * MB, GB2, 0, "too_much_memory"),
        ("a.gif", lambda: oversized_videos.a_gif(2048, 99), GB2, 48 * MB, ENDED, None),
        (
            "a.png",
            lambda: oversized_videos.a_png_with_a_long_text(GB2),
            64 * MB,
            256 * MB,
            ENDED,
            None,
        ),
    ],
    ids=["usual", "one that takes more", "a process that has more", "in one call"],
)
def test_exceeding_a_limit_fails_the_video_or_ends_the_process(
    name: str,
    make: oversized_videos.Make,
    max_growth: int,
    max_memory: int,
    status: int,
    code: str | None,
    tmp_path: Path,
) -> None:
    """With limits that are reached at once."""
    (tmp_path / name).write_bytes(make())
    (ended,) = oversized_videos.decode_in_process(
        tmp_path / name, max_growth=max_growth, max_memory=max_memory
    )
    assert (ended.status, ended.code) == (status, code)
