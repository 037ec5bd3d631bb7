"""Which frames a video yields, when and how oriented, and how bad files are reported."""

import io
import json
import struct
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import fsspec
import numpy as np
import pytest
from av.stream import Disposition
from plain_decoder import md5_of
from video_factories import (
    SHARED_DATA,
    a_folder,
    an_empty_file,
    missing,
    number_of,
    numbered_frame,
    numbered_frames,
    write_sound,
    write_video,
)

from rayclip.errors import BadVideo, VideoError
from rayclip.media.frame_choice import parse_fps
from rayclip.media.frames import iter_frames
from rayclip.media.timestamps import BestEffortTimestamp
from rayclip.media.video import VideoSource, open_video

Numbered = list[tuple[float, int]]


def numbered(source: VideoSource, extraction_fps: str | int | None = None) -> Numbered:
    """The timestamps in ms and the numbers of a video of ``numbered_frames``."""
    return [(round(ms, 3), number_of(rgb)) for ms, rgb in iter_frames(source, extraction_fps)]


def fps_of(source: VideoSource) -> float:
    with open_video(source) as video:
        return video.fps


def failure_of(source: VideoSource) -> VideoError:
    with pytest.raises(VideoError) as caught:
        list(iter_frames(source))
    return caught.value


# ---- which frames, and when ----


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("a.mp4", {}),
        ("a.mp4", {"codec": "libx264", "options": {"bf": "3", "g": "8"}}),
        ("a.mkv", {"codec": "libx264", "options": {"bf": "3", "g": "8"}}),
        ("a.avi", {}),
        ("a.mov", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
        ("a.gif", {"codec": "gif", "pix_fmt": "gray"}),
    ],
    ids=["mpeg4", "h264-with-b-frames", "matroska", "avi", "mjpeg", "gif"],
)
def test_without_a_rate_every_frame_is_yielded_at_its_own_time(
    tmp_path: Path, name: str, how: dict[str, Any]
) -> None:
    path = write_video(tmp_path / name, numbered_frames(8), fps=10, **how)
    assert numbered(path) == [(100.0 * number, number) for number in range(8)]


def test_frames_at_uneven_times_keep_them(tmp_path: Path) -> None:
    times = [0, 100, 150, 400, 900]
    path = write_video(tmp_path / "a.mkv", numbered_frames(5), times_ms=times)
    assert numbered(path) == list(zip(times, range(5), strict=True))


def test_a_rate_yields_the_last_frame_at_or_before_each_tick(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(8), fps=10)
    assert numbered(path, 5) == [(0.0, 0), (200.0, 2), (400.0, 4), (600.0, 6)]


def test_a_frame_shown_at_several_ticks_is_yielded_for_each(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(2), fps=10)
    assert numbered(path, 20) == [(0.0, 0), (50.0, 0), (100.0, 1), (150.0, 1)]


def test_the_gaps_between_frames_at_uneven_times_are_filled(tmp_path: Path) -> None:
    times = [0, 100, 150, 400, 900, 1000]
    path = write_video(tmp_path / "a.mkv", numbered_frames(6), times_ms=times)
    assert numbered(path, 5)[:6] == [
        (0.0, 0),
        (200.0, 2),
        (400.0, 3),
        (600.0, 3),
        (800.0, 3),
        (1000.0, 5),
    ]


@pytest.mark.parametrize("fps", ["30000/1001", "23.976", 7])
def test_the_times_of_ticks_are_exact(tmp_path: Path, fps: str | int) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(20), fps=10)
    times = [ms for ms, _ in iter_frames(path, fps)]
    assert times == [float(tick / parse_fps(fps) * 1000) for tick in range(len(times))]


@pytest.mark.parametrize(
    ("fps", "frames"),
    [
        (None, [(0.0, 0), (100.0, 1), (200.0, 2), (300.0, 3)]),
        (5, [(0.0, 0), (200.0, 2)]),
    ],
)
def test_times_count_from_the_start_of_the_file(
    tmp_path: Path, fps: int | None, frames: Numbered
) -> None:
    times = [5000 + 100 * number for number in range(4)]
    path = write_video(tmp_path / "a.mkv", numbered_frames(4), times_ms=times)
    assert numbered(path, fps) == frames


@pytest.mark.parametrize(
    ("fps", "frames"),
    [
        (None, [(1000.0, 0), (1100.0, 1), (1200.0, 2), (1300.0, 3)]),
        (5, [(1000.0, 0), (1200.0, 2)]),
    ],
)
def test_video_that_starts_after_its_sound_keeps_its_delay(
    tmp_path: Path, fps: int | None, frames: Numbered
) -> None:
    times = [1000 + 100 * number for number in range(4)]
    path = write_video(tmp_path / "a.mkv", numbered_frames(4), times_ms=times, silence_ms=2000)
    assert numbered(path, fps) == frames


def test_a_clip_too_short_for_the_rate_yields_its_first_frame_at_zero(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(4), fps=10)
    assert numbered(path, 1) == [(0.0, 0)]


@pytest.mark.parametrize("fps", [10, 25, Fraction(30_000, 1001)])
def test_a_video_reports_its_own_frame_rate(tmp_path: Path, fps: int | Fraction) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(5), fps=fps)
    assert fps_of(path) == pytest.approx(float(fps))


def test_the_frame_rate_of_uneven_frames_is_their_average(tmp_path: Path) -> None:
    times = [0, 100, 200, 300, 1000, 1400, 1500]
    path = write_video(tmp_path / "a.mp4", numbered_frames(7), times_ms=times)
    assert fps_of(path) == pytest.approx(7 / 1.6, rel=0.01)  # the last frame lasts another 100 ms


@pytest.mark.parametrize("fps", [0, -5, "fast"])
def test_an_invalid_rate_is_a_value_error(tmp_path: Path, fps: str | int) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(2))
    with pytest.raises(ValueError, match=r".+"):
        next(iter_frames(path, fps))


# ---- pixels ----


@pytest.mark.parametrize(("width", "height"), [(37, 53), (53, 37), (64, 49), (65, 48)])
def test_odd_sizes_are_kept(tmp_path: Path, width: int, height: int) -> None:
    path = write_video(tmp_path / "a.avi", numbered_frames(2, width, height))
    assert [rgb.shape for _, rgb in iter_frames(path)] == [(height, width, 3)] * 2


def test_colours_are_in_the_order_red_green_blue(tmp_path: Path) -> None:
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 255
    path = write_video(tmp_path / "a.avi", [red], codec="rawvideo", pix_fmt="bgr24")
    ((_, rgb),) = iter_frames(path)
    np.testing.assert_array_equal(rgb, red)


@pytest.mark.parametrize("mirror", [{}, {"hflip": True}, {"vflip": True}], ids=str)
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotated_and_mirrored_videos_are_turned_upright(
    tmp_path: Path, degrees: int, mirror: dict[str, bool]
) -> None:
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:16, :32] = 255  # one bright corner distinguishes all eight orientations
    path = write_video(tmp_path / "a.mp4", [stored], orientation={"degrees": degrees, **mirror})
    seen = np.rot90(stored, degrees // 90)
    seen = seen[:, ::-1] if "hflip" in mirror else seen
    seen = seen[::-1] if "vflip" in mirror else seen
    ((_, rgb),) = iter_frames(path)
    np.testing.assert_allclose(rgb.astype(int), seen.astype(int), atol=3)


# ---- which stream ----


def write_two_videos(path: Path, default: int | None) -> Path:
    """Write a small video stream, then a large one; one of them may be the default."""
    sizes = [(32, 32), (64, 48)]
    with av.open(str(path), "w") as output:
        streams = [
            output.add_stream("mpeg4", 10, width=width, height=height, pix_fmt="yuv420p")
            for width, height in sizes
        ]
        if default is not None:
            streams[default].disposition = Disposition.default
        for stream, (width, height) in zip(streams, sizes, strict=True):
            frame = av.VideoFrame.from_ndarray(numbered_frame(0, width, height), format="rgb24")
            output.mux(stream.encode(frame))
            output.mux(stream.encode())
    return path


@pytest.mark.parametrize(("default", "width"), [(None, 64), (0, 32), (1, 64)])
def test_the_default_stream_takes_precedence_over_the_largest(
    tmp_path: Path, default: int | None, width: int
) -> None:
    path = write_two_videos(tmp_path / "a.mkv", default)
    ((_, rgb),) = iter_frames(path)
    assert rgb.shape[1] == width


# ---- sources ----


class Pipe:
    """A file object without seek, like a socket or a member of a tar stream."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def read(self, size: int) -> bytes:
        return self._file.read(size)


class BreakingPipe(Pipe):
    """A pipe that breaks after some bytes."""

    def __init__(self, content: bytes, after: int) -> None:
        super().__init__(content)
        self._after = after

    def read(self, size: int) -> bytes:
        if self._file.tell() >= self._after:
            raise ConnectionResetError("the other end has gone")
        return super().read(size)


def as_path(path: Path, memory_url: str) -> VideoSource:
    return path


def as_text(path: Path, memory_url: str) -> VideoSource:
    return str(path)


def as_file_object(path: Path, memory_url: str) -> VideoSource:
    return io.BytesIO(path.read_bytes())


def as_pipe(path: Path, memory_url: str) -> VideoSource:
    return Pipe(path.read_bytes())  # type: ignore[return-value]


def as_url(path: Path, memory_url: str) -> VideoSource:
    url = f"{memory_url}/{path.name}"
    with fsspec.open(url, "wb") as file:
        file.write(path.read_bytes())
    return url


@pytest.mark.parametrize("source", [as_path, as_text, as_file_object, as_pipe, as_url])
def test_the_frames_are_the_same_from_every_kind_of_source(
    tmp_path: Path, memory_url: str, source: Callable[[Path, str], VideoSource]
) -> None:
    path = write_video(tmp_path / "a.ts", numbered_frames(8), codec="mpeg2video", fps=25)
    assert numbered(source(path, memory_url)) == [(40.0 * number, number) for number in range(8)]


def test_an_mp4_whose_index_comes_last_can_be_read_from_a_url(
    tmp_path: Path, memory_url: str
) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(8))
    assert numbered(as_url(path, memory_url)) == numbered(path)


def test_a_file_object_is_left_open(tmp_path: Path) -> None:
    file = io.BytesIO(write_video(tmp_path / "a.mp4", numbered_frames(2)).read_bytes())
    list(iter_frames(file))
    assert not file.closed


def test_frames_outlive_their_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(8))
    frames = [rgb for _, rgb in iter_frames(path)]
    assert list(map(number_of, frames)) == list(range(8))


# ---- files that are not videos ----


def text(folder: Path) -> Path:
    path = folder / "text.mp4"
    path.write_text("this is no video\n" * 100)
    return path


def random_bytes(folder: Path) -> Path:
    path = folder / "random.mp4"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    return path


def mp4_without_index(folder: Path) -> Path:
    content = write_video(folder / "whole.mp4", numbered_frames(8)).read_bytes()
    path = folder / "cut.mp4"
    path.write_bytes(content[: content.index(b"moov") - 4])
    return path


def audio_only(folder: Path) -> Path:
    return write_sound(folder / "a.m4a", "aac")


def audio_with_a_cover_picture(folder: Path) -> Path:
    return write_sound(folder / "a.mp3", "libmp3lame", cover=True)


def picture_of_81_megapixels(folder: Path) -> Path:
    content = bytearray(
        write_video(folder / "a.gif", numbered_frames(1), codec="gif", pix_fmt="gray").read_bytes()
    )
    content[6:10] = struct.pack("<HH", 9000, 9000)  # the size of a GIF's screen
    path = folder / "large.gif"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (missing, "not_found"),
        (an_empty_file, "empty_file"),
        (a_folder, "is_a_folder"),
        (text, "not_a_video"),
        (random_bytes, "not_a_video"),
        (mp4_without_index, "truncated"),
        (audio_only, "no_video_stream"),
        (audio_with_a_cover_picture, "no_video_stream"),
        (picture_of_81_megapixels, "too_large"),
    ],
)
def test_a_file_that_cannot_be_opened_has_a_code(
    tmp_path: Path, make: Callable[[Path], Path], code: str
) -> None:
    error = failure_of(make(tmp_path))
    assert (type(error), error.stage, error.code) == (BadVideo, "open", code)


def test_the_message_of_a_bad_video_is_a_sentence(tmp_path: Path) -> None:
    assert str(failure_of(missing(tmp_path))) == "there is no such file"


def test_a_url_without_a_file_is_not_found(memory_url: str) -> None:
    error = failure_of(f"{memory_url}/nowhere.mp4")
    assert (type(error), error.stage, error.code) == (BadVideo, "open", "not_found")


def test_an_empty_object_behind_a_url_is_an_empty_file(tmp_path: Path, memory_url: str) -> None:
    assert failure_of(as_url(an_empty_file(tmp_path), memory_url)).code == "empty_file"


@pytest.mark.parametrize(
    "url",
    [
        "reference://a.mp4::{table}",
        "reference::{table}",
        "simplecache::reference://a.mp4::{table}",
        "simplecache::reference::{table}",
        "zip://a.mp4::reference://a.zip::{table}",
    ],
)
def test_a_protocol_that_opens_other_files_is_refused(url: str, tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    table.write_text(json.dumps({"version": 1, "refs": {"a.mp4": [f"file://{__file__}"]}}))
    error = failure_of(url.format(table=f"file://{table}"))
    assert (type(error), error.stage, error.code) == (BadVideo, "open", "refused_protocol")


def test_an_impossible_file_name_is_not_found() -> None:
    assert failure_of("a\0b.mp4").code == "not_found"


def test_an_unknown_protocol_is_not_a_bad_video() -> None:
    error = failure_of("nosuch://bucket/a.mp4")
    assert (type(error), error.stage) == (VideoError, "read")


@pytest.mark.parametrize("share", [0.0, 0.5], ids=["at-the-start", "midway"])
def test_a_broken_connection_is_not_a_bad_video(tmp_path: Path, share: float) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (96, 128, 3), dtype=np.uint8) for _ in range(60)]
    content = write_video(tmp_path / "a.ts", noise, codec="mpeg2video", fps=25).read_bytes()
    error = failure_of(BreakingPipe(content, int(share * len(content))))  # type: ignore[arg-type]
    assert (type(error), error.stage) == (VideoError, "read")


# ---- damaged videos ----


def test_a_truncated_stream_yields_the_frames_that_decode(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.ts", numbered_frames(30), codec="mpeg2video", fps=25, options={"g": "5"}
    )
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    frames = numbered(path)
    assert 5 < len(frames) < 30
    assert frames == [(40.0 * number, number) for number in range(len(frames))]


def test_an_empty_packet_in_mid_stream_is_skipped(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.avi", numbered_frames(6), codec="mjpeg", pix_fmt="yuvj420p")
    path = tmp_path / "a.nut"
    with av.open(str(source)) as whole, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(whole.streams.video[0])
        packets = [packet for packet in whole.demux(video=0) if packet.size]
        for number, packet in enumerate(packets):
            if number == 3:
                empty = av.Packet(0)
                empty.pts, empty.dts, empty.time_base = packet.pts, packet.dts, packet.time_base
                empty.stream = stream
                output.mux_one(empty)
            else:
                packet.stream = stream
                output.mux_one(packet)
    assert [number for _, number in numbered(path)] == [0, 1, 2, 4, 5]


# ---- timestamps that libav has to guess ----


@pytest.mark.parametrize(
    ("pts_and_dts", "best"),
    [
        ([(0, 0), (1, 1), (2, 2)], [0, 1, 2]),
        ([(None, 0), (None, 1), (None, 2)], [0, 1, 2]),
        ([(0, None), (1, None)], [0, 1]),
        ([(None, None), (None, None)], [None, None]),
        ([(5, 0), (5, 1), (5, 2), (5, 3)], [5, 1, 2, 3]),  # constant pts are not trusted
        ([(0, 9), (1, 9), (2, 9)], [0, 1, 2]),  # nor are dts
    ],
)
def test_pts_are_trusted_unless_they_go_back_more_often_than_dts(
    pts_and_dts: list[tuple[int | None, int | None]], best: list[int | None]
) -> None:
    guess = BestEffortTimestamp()
    assert [guess.update(pts, dts) for pts, dts in pts_and_dts] == best


# ---- real and difficult videos, against what ffmpeg shows ----

REFERENCE = SHARED_DATA / "reference" / "fps_filter.json"
REFERENCE_RATES = ("1", "5", "23.976")  # it also has 2, which tells nothing that 1 and 5 do not
Shown = list[tuple[int, str | None]]
UNDECODABLE = {
    "s_noaudio_only.mp4": "no_video_stream",
    "x_empty.mp4": "empty_file",
    "x_random.mp4": "not_a_video",
    "x_text.mp4": "not_a_video",
}


@cache
def reference() -> dict[str, dict[str, Shown]]:
    """``{file: {fps: [(tick, md5 of its frame), ...]}}``; a placeholder if the data are missing."""
    if not REFERENCE.is_file():
        return {"without-test-data": {}}
    loaded: dict[str, dict[str, Shown]] = json.loads(REFERENCE.read_text())
    return loaded


def shared_video(folder: Path, name: str) -> Path:
    path = folder / "videos" / name
    return path if path.exists() else folder / "videos" / "hard" / name


def shown_by_rayclip(path: Path, fps: str) -> list[tuple[int, str]]:
    rate = float(parse_fps(fps))
    return [(round(ms * rate / 1000), md5_of(rgb)) for ms, rgb in iter_frames(path, fps)]


@pytest.mark.parametrize("name", [name for name in reference() if name not in UNDECODABLE])
def test_every_tick_shows_the_frame_that_ffmpeg_shows(shared_data: Path, name: str) -> None:
    for fps in REFERENCE_RATES:
        theirs = reference()[name][fps]
        ours = shown_by_rayclip(shared_video(shared_data, name), fps)
        if not theirs:  # too short for a tick: we yield the first frame
            assert [tick for tick, _ in ours] == [0], fps
            continue
        assert [tick for tick, _ in ours] == [tick for tick, _ in theirs], fps
        wrong = [
            tick
            for (tick, md5), (_, expected) in zip(ours, theirs, strict=True)
            if expected is not None and md5 != expected
        ]
        assert not wrong, fps


@pytest.mark.parametrize(("name", "code"), UNDECODABLE.items())
def test_shared_files_that_are_not_videos_are_bad_videos(
    shared_data: Path, name: str, code: str
) -> None:
    error = failure_of(shared_video(shared_data, name))
    assert (type(error), error.code) == (BadVideo, code)


def test_the_stream_that_ffmpeg_selects_keeps_its_times(shared_data: Path) -> None:
    times = json.loads((shared_data / "reference" / "nasa_13013.stream3.pts.json").read_text())
    ours = [ms for ms, _ in iter_frames(shared_video(shared_data, "nasa_13013.mp4"))]
    theirs = [float(frame["pts_time"]) * 1000 for frame in times]
    assert ours == pytest.approx(theirs, abs=0.001)  # the reference has whole microseconds


def test_the_sample_of_video_features_yields_all_its_frames(shared_data: Path) -> None:
    path = shared_video(shared_data, "v_GGSY1Qvo990.mp4")
    times = [ms for ms, _ in iter_frames(path)]
    assert len(times) == 355
    assert times == pytest.approx([number / 19.62 * 1000 for number in range(355)], abs=1)
    assert all(before < after for before, after in pairwise(times))
    assert fps_of(path) == pytest.approx(19.62, abs=0.005)
