"""Unusual streams: their frames, too, equal those of a plain decoder."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from h264_fields import write_fields
from plain_decoder import decode_plainly, digest_of, rgb_of, ticks_of
from video_factories import number_of, numbered_frames, remux, textured_frames, write_video

from rayclip.errors import BadVideo
from rayclip.media.frame_choice import FrameChoice, evenly_spaced
from rayclip.media.frames import divide, iter_frames, open_selected
from rayclip.media.gop import GopReader
from rayclip.media.segments import WHOLE

RATES = ["0.3", "1", "5", "23.976", "100"]
COUNT = 60
ONE_GROUP = {"g": "60", "sc_threshold": "1000000000"}
X264 = {"x264-params": "keyint=20:min-keyint=20:scenecut=0:threads=1:bframes=0"}
B_FRAMES = {"x264-params": "keyint=20:scenecut=0:threads=1:bframes=3:b-adapt=0"}

Change = Callable[[int, Any], Any]


def written(path: Path, codec: str, options: dict[str, str], **how: Any) -> Path:
    frames = textured_frames(COUNT, *how.pop("size", (96, 64)))
    return write_video(path, frames, fps=25, codec=codec, options=options, **how)


def retimed(path: Path, to: Path, change: Callable[[int, Any], None]) -> Path:
    """Copy a video and change the properties of its packets."""
    with av.open(str(path)) as whole, av.open(str(to), "w") as output:
        source = whole.streams.video[0]
        stream: Any = output.add_stream_from_template(source)
        packets = [packet for packet in whole.demux(source) if packet.size]
        for number, packet in enumerate(packets):
            change(number, packet)
            packet.stream = stream
            output.mux_one(packet)
    return to


def assert_equals_plain_decoder(path: Path) -> None:
    plain = decode_plainly(path)
    for rate in RATES:
        assert ticks_of(path, rate) == plain.at(rate), rate
    native = plain.native()
    for total in (1, 2, 7):
        chosen = iter_frames(path, extraction_total=total)
        wanted = [native[number] for number in evenly_spaced(len(native), total)]
        assert [(ms, digest_of(rgb)) for ms, rgb in chosen] == wanted, total


# ---- every packet is flagged as a keyframe ----


@pytest.mark.parametrize(
    ("name", "codec", "how"),
    [
        ("a.mp4", "mpeg4", {}),
        ("a.mov", "mpeg4", {}),
        ("a.mp4", "mpeg2video", {}),
        ("a.avi", "msmpeg4", {}),
        ("a.3gp", "h263", {"size": (176, 144)}),
        ("a.mov", "svq1", {"pix_fmt": "yuv410p"}),
        ("a.avi", "zmbv", {"pix_fmt": "bgr0"}),
        ("a.mp4", "libx264", {}),
    ],
)
def test_a_muxer_that_flags_all_packets_is_not_trusted(
    tmp_path: Path, name: str, codec: str, how: dict[str, Any]
) -> None:
    options = ONE_GROUP if codec not in ("libx264", "zmbv") else {}
    path = written(tmp_path / name, codec, options, **how)

    def flag(number: int, packet: Any) -> None:
        packet.is_keyframe = True

    assert_equals_plain_decoder(retimed(path, tmp_path / f"flagged-{name}", flag))


# ---- packets without pictures, or with half of one ----


def hidden(number: int, content: bytes) -> bytes:
    """Turn every twelfth VP8 picture into a hidden reference."""
    return bytes([content[0] & ~0x10]) + content[1:] if number % 12 == 5 else content


def test_hidden_pictures_of_vp8_are_neither_counted_nor_shown(tmp_path: Path) -> None:
    options = {"g": "200", "cpu-used": "8", "auto-alt-ref": "0"}
    path = remux(written(tmp_path / "a.webm", "libvpx", options), tmp_path / "b.webm", hidden)
    assert len(decode_plainly(path).frames) == COUNT - 5
    assert_equals_plain_decoder(path)


def test_pictures_split_into_two_packets_are_counted_once(tmp_path: Path) -> None:
    path = write_fields(tmp_path / "a.ts", COUNT)
    assert len(decode_plainly(path).frames) == COUNT
    assert_equals_plain_decoder(path)


@pytest.mark.parametrize(
    ("suffix", "codec", "content"),
    [("ts", "libx264", b"\0\0\0\1\x09\xf0" * 20), ("webm", "libvpx", b"\xff" * 100)],
    ids=["ts", "webm"],
)
def test_an_undecodable_video_is_a_bad_video_with_a_total_too(
    tmp_path: Path, suffix: str, codec: str, content: bytes
) -> None:
    path = written(tmp_path / f"a.{suffix}", codec, {})
    broken = remux(path, tmp_path / f"b.{suffix}", lambda number, whole: content)
    with pytest.raises(BadVideo):
        list(iter_frames(broken, extraction_total=3))


# ---- times ----


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_times_that_go_back_without_reordering_show_what_ffmpeg_shows(
    tmp_path: Path, codec: str
) -> None:
    options = X264 if codec == "libx264" else {"g": "20"}
    path = written(tmp_path / "a.mkv", codec, options)

    def jitter(number: int, packet: Any) -> None:
        packet.pts += 60 if number in (7, 13, 25, 40) else 0

    path = retimed(path, tmp_path / "b.mkv", jitter)
    times = [pts for pts, _, _ in decode_plainly(path).frames]
    assert any(second < first for first, second in pairwise(times))
    assert_equals_plain_decoder(path)


def write_without_b_frames_at_first(path: Path) -> Path:
    """Write 12 pictures without B-frames, then GOPs with them."""
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", 25, options=B_FRAMES)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number, rgb in enumerate(textured_frames(COUNT)):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            kind = "I" if number in (0, 12) else "P" if number < 12 else "NONE"
            frame.pict_type = getattr(av.video.frame.PictureType, kind)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def test_gops_without_b_frames_before_gops_with_them_are_trusted(tmp_path: Path) -> None:
    path = write_without_b_frames_at_first(tmp_path / "a.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.has_b_frames
        packets = (packet for packet in container.demux(stream) if packet.size)
        groups = list(GopReader(packets, stream.codec_context))
    assert len(groups[0].packets) == 12
    assert len(groups) == 4
    assert_equals_plain_decoder(path)


# ---- decoder configuration that changes in mid-stream ----


def tags_of(content: bytes) -> list[tuple[int, int, bytes]]:
    """The tags of an FLV file: type, time in ms, content."""
    tags, place = [], 13
    while place + 11 <= len(content):
        size = int.from_bytes(content[place + 1 : place + 4], "big")
        time = int.from_bytes(content[place + 4 : place + 7], "big") | content[place + 7] << 24
        tags.append((content[place], time, content[place + 11 : place + 11 + size]))
        place += 11 + size + 4
    return tags


def tag(kind: int, time: int, content: bytes) -> bytes:
    head = bytes([kind]) + len(content).to_bytes(3, "big") + (time & 0xFFFFFF).to_bytes(3, "big")
    head += bytes([time >> 24, 0, 0, 0])
    return head + content + (len(head) + len(content)).to_bytes(4, "big")


@pytest.mark.parametrize("size", [(96, 64), (128, 96)])
def test_a_new_header_in_mid_stream_is_used(tmp_path: Path, size: tuple[int, int]) -> None:
    short = "keyint=10:min-keyint=10:scenecut=0:threads=1:bframes=2:b-adapt=0"
    first = written(tmp_path / "a.flv", "libx264", {"x264-params": short}).read_bytes()
    other = {"x264-params": short + ":cabac=0:ref=1:8x8dct=0"}
    second = written(tmp_path / "b.flv", "libx264", other, size=size).read_bytes()
    path = tmp_path / "c.flv"
    later = [tag(kind, time + 2400, data) for kind, time, data in tags_of(second) if kind == 9]
    path.write_bytes(first[:13] + b"".join(tag(*one) for one in tags_of(first)) + b"".join(later))
    plain = decode_plainly(path)
    assert len(plain.frames) == 2 * COUNT
    for rate in ("0.4", "1", "5"):  # at 0.4 the GOP with the new header is skipped
        pipe: Any = Pipe(path.read_bytes())
        assert ticks_of(pipe, rate) == plain.at(rate), rate
    assert_equals_plain_decoder(path)


# ---- damage in a source that cannot seek ----


class Pipe:
    """A file object without seek."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def read(self, size: int) -> bytes:
        return self._file.read(size)


@pytest.mark.parametrize("group", [3, 12])
def test_a_damaged_packet_in_a_pipe_loses_no_tick(tmp_path: Path, group: int) -> None:
    options = {"g": str(group), "bf": "2", "sc_threshold": "1000000000"}
    path = written(tmp_path / "a.ts", "mpeg2video", options)
    for damaged in range(3, 57, 6):
        broken = remux(
            path,
            tmp_path / f"{damaged}.ts",
            lambda number, content, bad=damaged: (
                content[:10] + b"\xff" * (len(content) - 10) if number == bad else content
            ),
        )
        plain = decode_plainly(broken)
        for rate in ("1", "2", "5"):
            pipe: Any = Pipe(broken.read_bytes())
            ticks = [tick for tick, _ in ticks_of(pipe, rate)]
            assert ticks == [tick for tick, _ in plain.at(rate)], (damaged, rate)


# ---- segments ----


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mpg", "mpeg2video", {"g": "6", "bf": "2"}),
        ("a.avi", "libx264", B_FRAMES),
        ("a.avi", "msmpeg4", {"g": "6"}),
    ],
)
@pytest.mark.parametrize("rate", [None, "5"])
def test_segments_of_other_containers_equal_the_undivided_video(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], rate: str | None
) -> None:
    path = written(tmp_path / name, codec, options)
    segments = divide(path, FrameChoice(), segment_s=0.3, max_segments=7)
    choice = FrameChoice(None if rate is None else Fraction(rate))
    found: list[tuple[float, str]] = []
    for segment in segments or [WHOLE]:
        with open_selected(path, choice, segment=segment) as wanted:
            for shown in wanted.frames:
                digest = digest_of(rgb_of(shown.frame))
                found += [(ms, digest) for ms in shown.timestamps_ms]
    assert found == [(ms, digest_of(rgb)) for ms, rgb in iter_frames(path, rate)]


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "mpeg4"), ("a.flv", "flv"), ("a.mkv", "h264")]
)
@pytest.mark.parametrize("hours", [29, 31])
def test_times_that_jump_by_more_than_30_hours_are_damage(
    name: str, codec: str, hours: int, tmp_path: Path
) -> None:
    """As in ffmpeg. In one FLV file a flipped bit made a frame last 45 days."""
    jump_ms = hours * 3_600_000
    times_ms = [0, 100, 200, 300, *(jump_ms + 100 * place for place in range(4))]
    options = {"x264-params": "bframes=0"} if codec == "h264" else {}
    video = write_video(
        tmp_path / name, numbered_frames(8), fps=10, codec=codec, times_ms=times_ms, options=options
    )
    shown = [(round(ms), number_of(rgb)) for ms, rgb in iter_frames(video, Fraction(1, 3600))]
    if hours < 30:
        assert shown == [(3_600_000 * hour, 3) for hour in range(hours)]
    else:
        assert shown == [(0, 0)]
        counted_on = [(round(ms), number_of(rgb)) for ms, rgb in iter_frames(video, 10)]
        assert counted_on == [(100 * number, number) for number in range(8)]
