"""Random access points in real packets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest
from video_factories import textured_frames, write_video

from rayclip.media.keyframes import h264_length_size, is_random_access_point

COUNT, GROUP = 36, 12
X264 = {"g": str(GROUP), "bf": "2", "sc_threshold": "0", "threads": "1"}
EVERY_GROUP = list(range(0, COUNT, GROUP))


def write(folder: Path, name: str, codec: str, options: dict[str, str], **how: Any) -> Path:
    if codec not in av.codecs_available:
        pytest.skip(f"this libav cannot encode {codec}")
    frames = textured_frames(COUNT)
    return write_video(folder / name, frames, fps=25, codec=codec, options=options, **how)


def random_access_points(path: Path) -> tuple[list[int], list[int]]:
    """Numbers of flagged packets and of random access points, in decoding order."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        flagged = [number for number, packet in enumerate(packets) if packet.is_keyframe]
        codec = stream.codec_context
        entries = [n for n, packet in enumerate(packets) if is_random_access_point(packet, codec)]
    return flagged, entries


def first_frame_from(path: Path, number: int) -> tuple[int, bytes]:
    """The pts and pixels of a packet's picture from a fresh decoder."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        packets = [packet for packet in container.demux(stream) if packet.size]
        pts = packets[number].pts
        for packet in [*packets[number:], None]:
            for frame in stream.codec_context.decode(packet):
                if frame.pts == pts:
                    return pts, frame.to_ndarray(format="rgb24").tobytes()
    raise AssertionError("the picture did not come out")


# ---- H.264 ----


@pytest.mark.parametrize("params", ["open-gop=0", "open-gop=1", "open-gop=1:tff=1", "slices=4"])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_h264_gops_start_at_random_access_points(tmp_path: Path, name: str, params: str) -> None:
    path = write(tmp_path, name, "libx264", {**X264, "x264-params": params})
    flagged, entries = random_access_points(path)
    assert entries == flagged
    assert entries[0] == 0
    assert len(entries) >= 3


@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])
def test_recovery_points_of_h264_are_not_random_access_points(tmp_path: Path, name: str) -> None:
    options = {**X264, "bf": "0", "x264-params": "intra-refresh=1"}
    flagged, entries = random_access_points(write(tmp_path, name, "libx264", options))
    assert len(flagged) > 1
    assert entries == [0]


@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])
def test_all_flagged_intra_pictures_are_random_access_points(tmp_path: Path, name: str) -> None:
    flagged, entries = random_access_points(write(tmp_path, name, "libx264", {**X264, "g": "1"}))
    assert entries == flagged == list(range(COUNT))


@pytest.mark.parametrize(("name", "size"), [("a.mp4", 4), ("a.mkv", 4), ("a.ts", 0)])
def test_the_length_prefix_size_comes_from_the_extradata(
    tmp_path: Path, name: str, size: int
) -> None:
    with av.open(str(write(tmp_path, name, "libx264", X264))) as container:
        extradata = container.streams.video[0].codec_context.extradata
    assert h264_length_size(extradata or b"") == size


# ---- HEVC ----


@pytest.mark.parametrize("open_gop", [0, 1], ids=["idr", "cra"])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_hevc_gops_start_at_random_access_points(tmp_path: Path, name: str, open_gop: int) -> None:
    params = f"keyint={GROUP}:scenecut=0:open-gop={open_gop}:log-level=0"
    flagged, entries = random_access_points(
        write(tmp_path, name, "libx265", {"x265-params": params})
    )
    assert entries == flagged
    assert entries[0] == 0
    assert len(entries) >= 3


def test_recovery_points_of_hevc_are_not_random_access_points(tmp_path: Path) -> None:
    params = f"keyint={GROUP}:intra-refresh=1:bframes=0:log-level=0"
    _, entries = random_access_points(write(tmp_path, "a.mkv", "libx265", {"x265-params": params}))
    assert entries == [0]


# ---- other codecs, whose demuxers are trusted ----


@pytest.mark.parametrize(
    ("name", "codec", "options", "entries"),
    [
        ("a.ts", "mpeg2video", {"g": "12", "bf": "2", "sc_threshold": "1000000000"}, None),
        ("a.avi", "mpeg4", {"g": "12", "sc_threshold": "1000000000"}, EVERY_GROUP),
        ("a.webm", "libvpx", {"g": "12", "keyint_min": "12"}, EVERY_GROUP),
        ("a.avi", "ffv1", {"g": "1"}, list(range(COUNT))),
    ],
)
def test_keyframe_flags_of_other_codecs_are_trusted(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], entries: list[int] | None
) -> None:
    flagged, found = random_access_points(write(tmp_path, name, codec, options))
    assert found == flagged
    assert len(found) >= 3
    assert entries is None or found == entries


def test_every_picture_of_mjpeg_is_a_random_access_point(tmp_path: Path) -> None:
    path = write(tmp_path, "a.mov", "mjpeg", {}, pix_fmt="yuvj420p")
    assert random_access_points(path) == (list(range(COUNT)), list(range(COUNT)))


# ---- exactness ----


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {**X264, "x264-params": "open-gop=1"}),
        ("a.ts", "libx264", {**X264, "x264-params": "open-gop=1"}),
        ("a.mkv", "libx265", {"x265-params": "keyint=12:open-gop=1:log-level=0"}),
        ("a.ts", "mpeg2video", {"g": "12", "bf": "2"}),
    ],
)
def test_decoding_from_a_random_access_point_is_exact(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    path = write(tmp_path, name, codec, options)
    with av.open(str(path)) as container:
        decoded = container.decode(video=0)
        whole = {frame.pts: frame.to_ndarray(format="rgb24").tobytes() for frame in decoded}
    for number in random_access_points(path)[1]:
        pts, pixels = first_frame_from(path, number)
        assert pixels == whole[pts], number


# ---- packets without pictures ----


@pytest.mark.parametrize(
    "content",
    [
        lambda data: b"\0\0\0\1",
        lambda data: b"\0\0\0\2\x09\x10",  # a delimiter alone
        lambda data: b"\xff\xff\xff\xff" + data[4:],  # a unit that is longer than the packet
        lambda data: b"\0\0\0\0" * 8,
        lambda data: b"\0\0\0\1\x41",  # a slice without its header
        lambda data: b"\0\0\0\x0a\x41" + bytes(9),  # one whose Exp-Golomb code never ends
    ],
)
def test_a_broken_packet_is_not_a_random_access_point(
    tmp_path: Path, content: Callable[[bytes], bytes]
) -> None:
    with av.open(str(write(tmp_path, "a.mp4", "libx264", X264))) as container:
        stream = container.streams.video[0]
        good = next(container.demux(stream))
        broken = av.Packet(content(bytes(good)))
        broken.is_keyframe = True
        assert is_random_access_point(good, stream.codec_context)
        assert not is_random_access_point(broken, stream.codec_context)
