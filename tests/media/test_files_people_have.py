"""Files of phones, trimming apps and recorders show what a plain decoder shows."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.sidedata.sidedata import Type
from h264_fields import write_fields
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mp4_index import Edit, write_aperture, write_edits
from PIL import Image, ImageOps
from plain_decoder import decode_plainly, digest_of, md5_of, segments_of, ticks_of
from video_factories import SHARED_DATA, numbered_frame, remux, textured_frames, write_video

from rayclip.errors import BadVideo
from rayclip.media.frame_choice import FrameChoice, evenly_spaced
from rayclip.media.frame_numbers import FrameNumbers
from rayclip.media.frames import divide, iter_frames
from rayclip.media.gop import Irregular
from rayclip.media.segments import WHOLE

COUNT, FPS = 75, 25
RATES = ("1", "5", "23.976", "100")
CLOSED = {"bf": "3", "g": "12", "sc_threshold": "0", "threads": "1"}
UNITS = 512  # of an mp4 track's clock per frame

SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "h264": ("mp4", {"codec": "libx264", "options": CLOSED}),
    "h264-open": (
        "mp4",
        {"codec": "libx264", "options": {**CLOSED, "x264-params": "open-gop=1"}},
    ),
    "h264-pyramid": (
        "mkv",
        {"codec": "libx264", "options": {**CLOSED, "x264-params": "b-pyramid=normal:ref=4"}},
    ),
    "h264-without-b": ("mp4", {"codec": "libx264", "options": {**CLOSED, "bf": "0"}}),
    "h264-one-group": ("mp4", {"codec": "libx264", "options": {**CLOSED, "g": "300"}}),
    "h264-in-ts": ("ts", {"codec": "libx264", "options": CLOSED}),
    "hevc": (
        "mp4",
        {"codec": "libx265", "options": {"x265-params": "keyint=12:open-gop=0:log-level=0"}},
    ),
    "hevc-open": (
        "mp4",
        {"codec": "libx265", "options": {"x265-params": "keyint=12:open-gop=1:log-level=0"}},
    ),
    "mpeg4": ("mp4", {"codec": "mpeg4", "options": {"bf": "2", "g": "12"}}),
    "mpeg2": ("mp4", {"codec": "mpeg2video", "options": {"bf": "2", "g": "12"}}),
    "vp9": (
        "mp4",
        {
            "codec": "libvpx-vp9",
            "options": {"g": "12", "cpu-used": "8", "deadline": "realtime"},
        },
    ),
    "mjpeg": ("mov", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
}
MANY = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write each source once: three seconds at 25 fps."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            suffix, how = SOURCES[name]
            if how["codec"] not in av.codecs_available:
                pytest.skip(f"this libav cannot encode {how['codec']}")
            path = tmp_path_factory.mktemp(name) / f"a.{suffix}"
            made[name] = write_video(path, textured_frames(COUNT), fps=FPS, **how)
        return made[name]

    return make


def assert_equals_plain_decoder(path: Path) -> None:
    plain = decode_plainly(path)
    if not plain.frames:
        with pytest.raises(BadVideo):
            list(iter_frames(path))
        return
    for rate in RATES:
        assert ticks_of(path, rate) == plain.at(rate), rate
    native = plain.native()
    assert [(ms, digest_of(rgb)) for ms, rgb in iter_frames(path)] == native
    wanted = [native[number] for number in evenly_spaced(len(native), 7)]
    assert [(ms, digest_of(rgb)) for ms, rgb in iter_frames(path, extraction_total=7)] == wanted


# ---- edit lists ----

lengths_ms = st.sampled_from([40, 80, 200, 400, 777, 1200, 2000, 3000])
begins = st.one_of(
    st.just(-1),
    st.integers(0, COUNT - 1).map(lambda frame: frame * UNITS),
    st.integers(0, COUNT * UNITS - 1),
)
edit_lists = st.lists(st.builds(Edit, lengths_ms, begins), min_size=1, max_size=4)
in_mp4 = st.sampled_from(
    [name for name, (suffix, _) in SOURCES.items() if suffix in ("mp4", "mov")]
)


@MANY
@given(name=in_mp4, edits=edit_lists)
def test_edit_lists_show_what_a_plain_decoder_shows(
    source: Callable[[str], Path], tmp_path: Path, name: str, edits: list[Edit]
) -> None:
    path = write_edits(source(name), tmp_path / "edited.mp4", edits)
    assert_equals_plain_decoder(path)


@MANY
@given(name=in_mp4, edits=edit_lists)
def test_segments_of_an_edited_video_equal_the_undivided_video(
    source: Callable[[str], Path], tmp_path: Path, name: str, edits: list[Edit]
) -> None:
    path = write_edits(source(name), tmp_path / "edited.mp4", edits)
    assume(decode_plainly(path).frames)
    segments = divide(path, FrameChoice(), segment_s=0.3, max_segments=5)
    for rate in (None, "5"):
        undivided = [(ms, digest_of(rgb)) for ms, rgb in iter_frames(path, rate)]
        try:
            found = segments_of(path, segments, rate)
        except Irregular:
            continue
        if found:  # without any tick, the video is decoded undivided
            assert found == undivided


def test_a_video_trimmed_at_both_ends_can_be_divided(
    source: Callable[[str], Path], tmp_path: Path
) -> None:
    edits = [Edit(2000, 15 * UNITS)]
    path = write_edits(source("h264"), tmp_path / "trimmed.mp4", edits)
    segments = divide(path, FrameChoice(), segment_s=0.4, max_segments=5)
    assert len(segments) > 2
    for rate in (None, "5"):
        undivided = [(ms, digest_of(rgb)) for ms, rgb in iter_frames(path, rate)]
        assert segments_of(path, segments, rate) == undivided


def test_a_video_with_several_shown_parts_is_not_divided(
    source: Callable[[str], Path], tmp_path: Path
) -> None:
    edits = [Edit(1000, 15 * UNITS), Edit(1000, 0)]
    path = write_edits(source("h264"), tmp_path / "edited.mp4", edits)
    assert divide(path, FrameChoice(), segment_s=0.3, max_segments=5) == [WHOLE]


# ---- lost and empty packets ----

COUNTED = [name for name in SOURCES if name.startswith("h264")]  # frame_num shows what is lost
lost_packets = st.one_of(
    st.sets(st.integers(0, COUNT - 1), min_size=1, max_size=5),
    st.builds(
        lambda first, count: set(range(first, first + count)),
        st.integers(0, COUNT - 1),
        st.integers(1, 8),
    ),
)


@MANY
@given(name=st.sampled_from([*COUNTED, "mjpeg", "vp9"]), lost=lost_packets)
def test_lost_packets_show_what_a_plain_decoder_shows(
    source: Callable[[str], Path], tmp_path: Path, name: str, lost: set[int]
) -> None:
    path = tmp_path / f"lossy.{SOURCES[name][0]}"
    remux(source(name), path, lambda number, data: None if number in lost else data)
    assert_equals_plain_decoder(path)


@MANY
@given(
    name=st.sampled_from([*COUNTED, "hevc", "mpeg4", "mjpeg"]),
    lost=lost_packets.map(lambda lost: lost - {0}),
)
def test_packets_without_a_picture_are_not_frames(
    source: Callable[[str], Path], tmp_path: Path, name: str, lost: set[int]
) -> None:
    path = tmp_path / f"zeroed.{SOURCES[name][0]}"
    remux(source(name), path, lambda number, data: bytes(len(data)) if number in lost else data)
    assert_equals_plain_decoder(path)


@pytest.mark.parametrize("lost", [42, 46, 52])
def test_a_zeroed_packet_that_libav_joins_with_the_next_is_not_a_frame(
    source: Callable[[str], Path], tmp_path: Path, lost: int
) -> None:
    path = tmp_path / "zeroed.ts"
    remux(
        source("h264-in-ts"),
        path,
        lambda number, data: bytes(len(data)) if number == lost else data,
    )
    assert_equals_plain_decoder(path)


# ---- containers without presentation times ----


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.avi", "libx264"),
        ("a.avi", "mpeg4"),
        ("a.asf", "libx264"),
        ("a.asf", "mpeg4"),
        ("a.wmv", "msmpeg4"),
        ("a.mpg", "mpeg2video"),
        ("a.vob", "mpeg2video"),
        ("a.m2v", "mpeg2video"),
        ("a.m1v", "mpeg1video"),
        ("a.m4v", "mpeg4"),
        ("a.h264", "libx264"),
        ("a.mjpeg", "mjpeg"),
        ("a.flv", "libx264"),
        ("a.nut", "mpeg4"),
    ],
)
def test_times_made_up_by_libav_are_not_trusted(
    tmp_path: Path, name: str, codec: str, b_frames: int
) -> None:
    options = {"bf": str(b_frames)} if codec not in ("msmpeg4", "mjpeg") else {}
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    frames = textured_frames(COUNT)
    how: Any = {"codec": codec, "options": {**options, "g": "12"}, "pix_fmt": pix_fmt}
    path = write_video(tmp_path / name, frames, fps=FPS, **how)
    times = [ms for ms, _ in iter_frames(path)]
    steps = [after - before for before, after in pairwise(times)]
    assert steps == pytest.approx([1000 / FPS] * (COUNT - 1), abs=1)
    assert_equals_plain_decoder(path)


# ---- side data ----


def jpeg(orientation: int) -> bytes:
    """A picture that is red at the top and green at the left, with an EXIF orientation."""
    picture = np.full((48, 64, 3), 128, np.uint8)
    picture[:12], picture[12:, :16] = (255, 0, 0), (0, 255, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_according_to_exif(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.avi"
    data = jpeg(orientation)
    with av.open(str(path), "w") as output:
        stream = output.add_mux_stream("mjpeg", 10, width=64, height=48)
        for number in range(5):
            packet = av.Packet(data)
            packet.pts = packet.dts = number
            packet.stream, packet.is_keyframe = stream, True
            output.mux(packet)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    frames = [rgb for _, rgb in iter_frames(path)]
    assert len(frames) == 5
    for rgb in frames:
        assert rgb.shape == upright.shape
        assert np.abs(rgb.astype(int) - upright).mean() < 4


@pytest.mark.parametrize("number", [29, 31, 1234])
def test_unknown_side_data_have_a_name(number: int) -> None:
    assert Type(number) is Type(number)
    assert Type(number).value == number


# ---- streams ----


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "nut"])
def test_a_track_without_packets_is_skipped(
    source: Callable[[str], Path], tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    larger = write_video(
        tmp_path / "larger.mp4", [numbered_frame(1, 320, 240)], fps=FPS, codec="libx264"
    )
    with (
        av.open(str(source("h264"))) as small,
        av.open(str(larger)) as large,
        av.open(str(path), "w") as output,
    ):
        tracks = [small.streams.video[0], large.streams.video[0]]
        written = [output.add_stream_from_template(track) for track in tracks]
        for packet in small.demux(tracks[0]):
            if packet.dts is not None:
                packet.stream = written[0]
                output.mux(packet)
    assert len(list(iter_frames(path))) == COUNT


def test_a_recording_that_declares_its_size_late_is_decoded(tmp_path: Path) -> None:
    options = {**CLOSED, "g": "250"}
    frames = textured_frames(300)
    whole = write_video(tmp_path / "a.ts", frames, fps=FPS, codec="libx264", options=options)
    content = whole.read_bytes()
    path = tmp_path / "late.ts"
    path.write_bytes(content[len(content) // 10 // 188 * 188 :])
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.width == 0
    found = list(iter_frames(path))
    assert [digest_of(rgb) for _, rgb in found] == [
        digest_of(rgb) for _, rgb in iter_frames(whole)
    ][250:]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(
    ("crop", "shown"),
    [
        ((16, 8, 16, 8), (16, 8, 64, 48)),
        (
            (3, 5, 2, 1),
            (2, 4, 90, 58),
        ),  # four pixels share a chroma sample, which ffmpeg does not split
        ((0, 0, 0, 7), (0, 0, 96, 56)),
    ],
)
def test_cropping_by_the_container_is_applied(
    source: Callable[[str], Path],
    tmp_path: Path,
    suffix: str,
    crop: tuple[int, int, int, int],
    shown: tuple[int, int, int, int],
) -> None:
    path = write_aperture(source("h264"), tmp_path / "cropped.mp4", *crop)
    if suffix == "mkv":
        path = remux(path, tmp_path / "cropped.mkv", lambda _, data: data)
    left, top, width, height = shown
    found = [rgb for _, rgb in iter_frames(path, 5)]
    whole = [rgb for _, rgb in iter_frames(source("h264"), 5)]
    for rgb, full in zip(found, whole, strict=True):
        assert np.array_equal(rgb, full[top : top + height, left : left + width])


@pytest.mark.parametrize(
    ("codec", "name", "pix_fmt"),
    [
        ("libsvtav1", "a.mp4", "yuv420p"),
        ("mjpeg", "a.mov", "yuvj420p"),
        ("qtrle", "a.mov", "rgb24"),
        ("v210", "a.mov", "yuv422p10le"),
        ("rawvideo", "a.mov", "rgb24"),
    ],
)
def test_cropping_by_the_container_is_read_for_every_codec(
    tmp_path: Path, codec: str, name: str, pix_fmt: str
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this libav cannot encode {codec}")
    frames = textured_frames(5)
    whole = write_video(tmp_path / name, frames, codec=codec, pix_fmt=pix_fmt)
    cropped = write_aperture(whole, tmp_path / f"cropped{whole.suffix}", 16, 8, 8, 16)
    for (_, rgb), (_, full) in zip(iter_frames(cropped), iter_frames(whole), strict=True):
        assert np.array_equal(rgb, full[8:-16, 16:-8])


@pytest.mark.parametrize("suffix", ["ts", "mpg", "ogv"])
def test_recordings_start_with_the_first_used_stream(tmp_path: Path, suffix: str) -> None:
    """A smaller video that starts earlier is not used, as in ffmpeg."""
    codec, options = ("mpeg2video", {}) if suffix != "ogv" else ("libtheora", {})
    if codec not in av.codecs_available:
        pytest.skip(f"this libav cannot encode {codec}")
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w") as output:
        tracks: list[Any] = []
        for width, height in ((64, 48), (128, 96)):
            track: Any = output.add_stream(codec, FPS, options=options)
            track.width, track.height, track.pix_fmt = width, height, "yuv420p"
            tracks.append(track)
        for number in range(50):
            for track, first in zip(tracks, (0, 15), strict=True):
                if number < first:
                    continue
                rgb = numbered_frame(number, track.width, track.height)
                frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                output.mux(track.encode(frame))
        for track in tracks:
            output.mux(track.encode())
    assert next(ms for ms, _ in iter_frames(path)) == pytest.approx(0, abs=1)
    assert [ms for ms, _ in iter_frames(path, 1)] == [0]


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_packets_with_single_fields_are_not_counted_as_frames(tmp_path: Path, suffix: str) -> None:
    fields = write_fields(tmp_path / "a.ts", 24)
    path = remux(fields, tmp_path / f"a.{suffix}", lambda _, data: data)
    native = decode_plainly(path).native()
    wanted = [native[number] for number in evenly_spaced(len(native), 5)]
    assert [(ms, digest_of(rgb)) for ms, rgb in iter_frames(path, extraction_total=5)] == wanted


@pytest.mark.parametrize("sets", [b"\0\0\1\0\0", b"\0\4\x67\x64\0\x0a\1\0\0", b"\xff" * 9])
def test_broken_parameter_sets_are_skipped(sets: bytes) -> None:
    numbers = FrameNumbers(b"\1\x64\0\x0a\xff\xe1" + sets)
    assert numbers.find_missing(b"\0\0\0\2\x65\x88") is None


# ---- undecodable files ----


def test_an_encrypted_video_has_its_own_code(tmp_path: Path) -> None:
    key = "0123456789abcdef" * 2
    muxing = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": key,
        "encryption_kid": key,
    }
    frames = textured_frames(20)
    path = write_video(tmp_path / "a.mp4", frames, codec="libx264", muxing=muxing)
    for choice in ({}, {"extraction_fps": 5}, {"extraction_total": 8}):
        with pytest.raises(BadVideo, match="encrypted") as caught:
            list(iter_frames(path, **choice))
        assert caught.value.code == "encrypted"


def test_an_animated_webp_has_its_own_code(tmp_path: Path) -> None:
    pictures = [Image.fromarray(frame) for frame in textured_frames(5)]
    path = tmp_path / "a.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)
    with pytest.raises(BadVideo, match="animated WebP"):
        list(iter_frames(path))


# ---- publicly reported files, against what ffmpeg shows ----

REPORTED = SHARED_DATA / "reference" / "reported.json"
CHOICES: dict[str, dict[str, int]] = {
    "native": {},
    "1": {"extraction_fps": 1},
    "5": {"extraction_fps": 5},
    "total8": {"extraction_total": 8},
}
reported = json.loads(REPORTED.read_text()) if REPORTED.exists() else {}


@pytest.mark.skipif(not reported, reason=f"there is no {REPORTED}")
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("name", sorted(reported))
def test_publicly_reported_files_show_what_ffmpeg_shows(name: str, choice: str) -> None:
    path = SHARED_DATA / "videos" / "reported" / name
    expected = reported[name][choice]
    if name == "anim.webp":  # ffmpeg 9 decodes it, PyAV's libav does not
        expected = []
    if not expected:
        with pytest.raises(BadVideo, match=r"encrypted|animated WebP"):
            list(iter_frames(path, **CHOICES[choice]))
        return
    found = [(ms, md5_of(rgb)) for ms, rgb in iter_frames(path, **CHOICES[choice])]
    unit_ms = 1000 / int(choice) if choice in ("1", "5") else 1
    assert [ms for ms, _ in found] == pytest.approx([t * unit_ms for t, _ in expected], abs=1)
    for (_, md5), (_, right) in zip(found, expected, strict=True):
        assert right in (None, md5)
