"""Re-encoded videos: the source's ticks, upright, at exactly the requested rate."""

import os
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import shapes
from video_factories import Rgb, number_of, numbered_frames, write_video

from rayclip.errors import BadVideo, VideoError
from rayclip.media.frame_choice import parse_fps
from rayclip.media.frames import iter_frames
from rayclip.media.reencode import reencode

RATES = ["5", "1", "2.5", "30000/1001"]
FIVE = Fraction(5)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of coloured shapes at 25 frames a second."""
    path = tmp_path_factory.mktemp("scenes") / "scenes.mp4"
    shapes.write_video(path, [("red", "star"), ("blue", "circle")], width=160, height=120)
    return path


def stars(count: int, width: int = 160, height: int = 120) -> list[Rgb]:
    """A star moving through the upper left, so that all orientations differ."""
    return [
        np.asarray(
            shapes.draw(
                "red",
                "star",
                size=(width, height),
                centre=(width / 3 + number, height / 3),
                radius=height / 4,
                background=(120, 150, 170),
            )
        )
        for number in range(count)
    ]


def pictures(path: Path, fps: str | None = None) -> list[Rgb]:
    return [rgb for _, rgb in iter_frames(path, fps)]


def psnr(one: Rgb, other: Rgb) -> float:
    """PSNR in dB over the area that both have."""
    height, width = np.minimum(one.shape, other.shape)[:2]
    difference = one[:height, :width].astype(float) - other[:height, :width]
    return float(10 * np.log10(255**2 / max(np.mean(difference**2), 1e-9)))


def assert_similar(ours: list[Rgb], theirs: list[Rgb]) -> None:
    assert min(psnr(*pair) for pair in zip(ours, theirs, strict=True)) > 30


# ---- which frames, and when ----


@pytest.mark.parametrize("fps", RATES)
def test_the_file_has_exactly_the_rate_and_a_frame_for_every_tick(
    tmp_path: Path, scenes: Path, fps: str
) -> None:
    rate = parse_fps(fps)
    reencode(str(scenes), str(tmp_path / "a.mp4"), rate)
    ticks = [ms for ms, _ in iter_frames(scenes, fps)]
    with av.open(str(tmp_path / "a.mp4")) as file:
        (stream,) = file.streams
        assert isinstance(stream, av.VideoStream)
        assert (stream.average_rate, stream.frames) == (rate, len(ticks))
    assert [ms for ms, _ in iter_frames(tmp_path / "a.mp4")] == pytest.approx(ticks, abs=1e-6)


@pytest.mark.parametrize("fps", RATES)
def test_frames_resemble_the_ticks_of_the_source(tmp_path: Path, scenes: Path, fps: str) -> None:
    reencode(str(scenes), str(tmp_path / "a.mp4"), parse_fps(fps))
    assert_similar(pictures(tmp_path / "a.mp4"), pictures(scenes, fps))


@pytest.mark.parametrize("fps", RATES)
def test_the_files_own_rate_yields_every_frame_once(tmp_path: Path, scenes: Path, fps: str) -> None:
    reencode(str(scenes), str(tmp_path / "a.mp4"), parse_fps(fps))
    every, ticks = pictures(tmp_path / "a.mp4"), pictures(tmp_path / "a.mp4", fps)
    np.testing.assert_array_equal(every, ticks)


def test_a_frame_shown_at_several_ticks_is_written_for_each(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", numbered_frames(3), fps=10)
    reencode(str(source), str(tmp_path / "b.mp4"), Fraction(20))
    assert [number_of(rgb) for rgb in pictures(tmp_path / "b.mp4")] == [0, 0, 1, 1, 2, 2]


def test_a_delay_before_the_first_frame_is_dropped(tmp_path: Path) -> None:
    times = [1000 + 100 * number for number in range(4)]
    source = write_video(tmp_path / "a.mkv", numbered_frames(4), times_ms=times, silence_ms=2000)
    reencode(str(source), str(tmp_path / "b.mp4"), FIVE)
    times_and_numbers = [(ms, number_of(rgb)) for ms, rgb in iter_frames(tmp_path / "b.mp4")]
    assert times_and_numbers == [(0.0, 0), (200.0, 2)]


def test_a_clip_too_short_for_the_rate_yields_one_frame(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", numbered_frames(4), fps=10)
    reencode(str(source), str(tmp_path / "b.mp4"), Fraction(1))
    assert [number_of(rgb) for rgb in pictures(tmp_path / "b.mp4")] == [0]


def test_a_real_video_yields_90_frames_at_5_fps(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "videos" / "v_GGSY1Qvo990.mp4"
    reencode(str(source), str(tmp_path / "a.mp4"), FIVE)
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert file.streams.video[0].average_rate == 5
    ours = pictures(tmp_path / "a.mp4")
    assert len(ours) == 90
    assert_similar(ours, pictures(source, "5"))


# ---- pixels ----


def test_the_encoder_uses_the_defaults_of_ffmpeg(tmp_path: Path, scenes: Path) -> None:
    reencode(str(scenes), str(tmp_path / "a.mp4"), FIVE)
    written = (tmp_path / "a.mp4").read_bytes()  # x264 writes its settings into the stream
    preset_medium = [b"subme=7", b"ref=3", b"bframes=3", b"keyint=250", b"rc_lookahead=40"]
    assert [word for word in [b"crf=23.0", *preset_medium] if word not in written] == []


def test_the_same_source_gives_the_same_file(tmp_path: Path, scenes: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        reencode(str(scenes), str(tmp_path / name), FIVE)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "written"),
    [
        ("a.mkv", "ffv1", "yuv420p", "yuv420p"),
        ("a.mkv", "ffv1", "yuv422p", "yuv422p"),
        ("a.mkv", "ffv1", "yuv420p10le", "yuv420p10le"),
        ("a.mov", "mjpeg", "yuvj420p", "yuvj420p"),
        ("a.mkv", "ffv1", "bgr0", "yuv444p"),
        ("a.mov", "png", "rgb24", "yuv444p"),
        ("a.mkv", "ffv1", "yuv411p", "yuv444p"),
    ],
)
def test_pixel_formats_that_x264_supports_are_kept(
    tmp_path: Path, name: str, codec: str, pixels: str, written: str
) -> None:
    source = write_video(tmp_path / name, stars(4), codec=codec, pix_fmt=pixels)
    reencode(str(source), str(tmp_path / "b.mp4"), FIVE)
    with av.open(str(tmp_path / "b.mp4")) as file:
        assert file.streams.video[0].codec_context.pix_fmt == written
    assert_similar(pictures(tmp_path / "b.mp4"), pictures(source, "5"))


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m", "bt2020nc"])
def test_the_colour_matrix_of_the_source_is_kept(tmp_path: Path, matrix: str) -> None:
    options = {"colorspace": matrix, "crf": "1"}
    source = write_video(tmp_path / "a.mp4", stars(4), codec="libx264", options=options)
    reencode(str(source), str(tmp_path / "b.mp4"), FIVE)
    with av.open(str(source)) as theirs, av.open(str(tmp_path / "b.mp4")) as ours:
        matrices = {file.streams.video[0].codec_context.colorspace for file in (theirs, ours)}
    assert len(matrices) == 1
    assert_similar(pictures(tmp_path / "b.mp4"), pictures(source, "5"))


def test_x264_chooses_its_own_keyframes(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mov", stars(8), codec="mjpeg", pix_fmt="yuvj420p")
    reencode(str(source), str(tmp_path / "b.mp4"), FIVE)
    with av.open(str(tmp_path / "b.mp4")) as file:
        assert [packet.is_keyframe for packet in file.demux(video=0) if packet.size] == [
            True,
            False,
            False,
            False,
        ]


@pytest.mark.parametrize(
    ("size", "pixels", "written"),
    [
        ((161, 121), "yuv420p", (160, 120)),
        ((160, 121), "yuv420p", (160, 120)),
        ((161, 121), "yuv422p", (160, 121)),
        ((161, 121), "yuv444p", (161, 121)),
    ],
)
def test_an_odd_size_loses_only_the_last_row_or_column(
    tmp_path: Path, size: tuple[int, int], pixels: str, written: tuple[int, int]
) -> None:
    source = write_video(tmp_path / "a.mkv", stars(4, *size), codec="ffv1", pix_fmt=pixels)
    reencode(str(source), str(tmp_path / "b.mp4"), FIVE)
    ours = pictures(tmp_path / "b.mp4")
    assert ours[0].shape == (written[1], written[0], 3)
    assert_similar(ours, pictures(source, "5"))


@pytest.mark.parametrize("mirror", [{}, {"hflip": True}, {"vflip": True}], ids=str)
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("size", [(160, 120), (160, 121)], ids=["even", "odd"])
def test_a_rotated_or_mirrored_video_is_turned_upright_once(
    tmp_path: Path, degrees: int, mirror: dict[str, Any], size: tuple[int, int]
) -> None:
    source = write_video(
        tmp_path / "a.mov",
        stars(2, *size),
        codec="mjpeg",
        pix_fmt="yuvj420p",
        orientation={"degrees": degrees, **mirror},
    )
    reencode(str(source), str(tmp_path / "b.mp4"), Fraction(10))
    ours, theirs = pictures(tmp_path / "b.mp4"), pictures(source, "10")
    assert [side // 2 * 2 for side in theirs[0].shape[:2]] == list(ours[0].shape[:2])
    assert_similar(ours, theirs)


def test_pictures_of_another_size_are_scaled_to_the_first(tmp_path: Path) -> None:
    joined = tmp_path / "joined.h264"
    with joined.open("wb") as file:
        for width, height in [(160, 120), (80, 60)]:
            frames = numbered_frames(5, width, height)
            file.write(write_video(tmp_path / "a.h264", frames, codec="libx264").read_bytes())
    assert len({rgb.shape for rgb in pictures(joined)}) == 2
    reencode(str(joined), str(tmp_path / "b.mp4"), Fraction(25))
    ours = pictures(tmp_path / "b.mp4")
    assert {rgb.shape for rgb in ours} == {(120, 160, 3)}
    assert [number_of(rgb) for rgb in ours] == [number_of(rgb) for rgb in pictures(joined, "25")]


# ---- the file ----


@pytest.mark.parametrize("name", ["new folder/deep/a b.mp4", "a:b %d 'ü'.mp4", "-.mp4", "bare"])
def test_any_path_works_and_its_folder_is_created(
    tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    reencode(str(scenes), name, Fraction(1))
    assert len(pictures(tmp_path / name)) == 4
    assert [path.name for path in (tmp_path / name).parent.iterdir()] == [Path(name).name]


def test_the_source_may_be_a_url_or_a_file_object(tmp_path: Path, scenes: Path) -> None:
    reencode(f"file://{scenes}", str(tmp_path / "a.mp4"), Fraction(1), {"auto_mkdir": False})
    with scenes.open("rb") as file:
        reencode(file, str(tmp_path / "b.mp4"), Fraction(1))
    assert len(pictures(tmp_path / "a.mp4")) == len(pictures(tmp_path / "b.mp4")) == 4


def test_the_file_replaces_its_own_source(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", numbered_frames(8), fps=10)
    reencode(str(source), str(source), FIVE)
    assert [number_of(rgb) for rgb in pictures(source)] == [0, 2, 4, 6]


def test_concurrent_writers_of_one_file_leave_a_complete_file(tmp_path: Path, scenes: Path) -> None:
    destination = tmp_path / "new" / "a.mp4"
    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(reencode, str(scenes), str(destination), FIVE) for _ in range(4)]
    assert [writer.exception() for writer in writers] == [None] * 4
    assert_similar(pictures(destination), pictures(scenes, "5"))
    assert list(destination.parent.iterdir()) == [destination]


# ---- failures ----


def test_a_bad_source_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(os.urandom(5000))
    with pytest.raises(BadVideo) as caught:
        reencode(str(tmp_path / "bad.mp4"), str(tmp_path / "new" / "a.mp4"), FIVE)
    assert (caught.value.stage, caught.value.code) == ("open", "not_a_video")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.mp4"]


class InterruptedFile:
    """A file whose reading fails midway."""

    def __init__(self, path: Path, size: int) -> None:
        self._file, self._left = path.open("rb"), size

    def read(self, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise ConnectionError("the network is gone")
        return self._file.read(size)


def test_an_interrupted_source_keeps_the_old_file(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 120, 160, 3), np.uint8)
    source = write_video(tmp_path / "a.mkv", list(noise), codec="ffv1")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "b.mp4").write_text("old")
    broken: Any = InterruptedFile(source, source.stat().st_size // 2)
    with pytest.raises(VideoError) as caught:
        reencode(broken, str(tmp_path / "new" / "b.mp4"), FIVE)
    assert caught.value.stage == "read"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["b.mp4"]
    assert (tmp_path / "new" / "b.mp4").read_text() == "old"


def test_pictures_that_x264_refuses_fail_the_video(tmp_path: Path) -> None:
    wide = [np.zeros((16, 17_000, 3), np.uint8)]
    source = write_video(tmp_path / "a.mkv", wide, codec="ffv1")
    with pytest.raises(VideoError, match="17000x16") as caught:
        reencode(str(source), str(tmp_path / "b.mp4"), FIVE)
    assert (caught.value.stage, caught.value.code) == ("encode", "not_reencodable")
    assert list(tmp_path.iterdir()) == [source]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Limit the file size, which has the effect of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 10, 3000])
def test_a_full_disk_is_an_os_error_and_leaves_no_file(
    tmp_path: Path, scenes: Path, size: int
) -> None:
    with files_of_at_most(size), pytest.raises(OSError, match="File too large"):
        reencode(str(scenes), str(tmp_path / "a.mp4"), FIVE)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_created_is_an_os_error(tmp_path: Path, scenes: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        reencode(str(scenes), str(tmp_path / "file" / "a.mp4"), FIVE)
