"""Decoding only what is needed yields the same frames as decoding everything."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import av
import pytest
from counting_codec import CountingCodec
from plain_decoder import Plain, decode_plainly, digest_of, segments_of, ticks_of
from video_factories import hide_beginning, remux, textured_frames, write_video

from rayclip.media.container import open_stream, read_packets
from rayclip.media.frame_choice import FrameChoice, evenly_spaced, parse_fps
from rayclip.media.frames import divide, iter_frames, open_selected
from rayclip.media.gop import GopReader, Irregular
from rayclip.media.planning import PlannedDecoder
from rayclip.media.sampling import Clock, frame_rule
from rayclip.media.segments import WHOLE

RATES = ["0.3", "1", "5", "23.976", "100"]
B_FRAMES = {"bf": "3", "g": "12", "sc_threshold": "0", "threads": "1"}
UNEVEN_MS = [40 * n + (17 * n * n) % 31 + (400 if n > 30 else 0) for n in range(75)]


@dataclass(frozen=True)
class Recipe:
    """How to write a video; by default three seconds at 25 fps."""

    name: str
    codec: str
    count: int = 75
    how: Any = None

    def write(self, folder: Path) -> Path:
        if self.codec not in av.codecs_available:
            pytest.skip(f"this libav cannot encode {self.codec}")
        how = {"fps": 25, **(self.how or {})}
        return write_video(folder / self.name, textured_frames(self.count), codec=self.codec, **how)


def x264(name: str, params: str = "", count: int = 75, **how: Any) -> Recipe:
    options = {**B_FRAMES, **({"x264-params": params} if params else {})}
    return Recipe(name, "libx264", count, {"options": options, **how})


RECIPES = {
    "h264": x264("a.mp4"),
    "h264-pyramid": x264("a.mkv", "b-pyramid=normal:ref=4:bframes=5:b-adapt=0"),
    "h264-open-gop": x264("a.mp4", "open-gop=1"),
    "h264-open-gop-in-ts": x264("a.ts", "open-gop=1"),
    "h264-uneven": x264("a.mp4", times_ms=UNEVEN_MS),
    "h264-uneven-open-gop": x264("a.mkv", "open-gop=1", times_ms=UNEVEN_MS),
    "h264-late": x264("a.mp4", times_ms=[1900 + 40 * n for n in range(75)]),
    "h264-after-its-sound": x264(
        "a.mkv", times_ms=[1900 + 40 * n for n in range(75)], silence_ms=500
    ),
    "h264-intra-refresh": x264("a.mp4", "intra-refresh=1:bframes=0"),
    "h264-intra-refresh-in-ts": x264("a.ts", "intra-refresh=1:bframes=2"),
    "h264-interlaced": x264("a.mp4", "tff=1"),
    "h264-interlaced-in-ts": x264("a.ts", "tff=1"),
    "h264-all-intra": x264("a.mp4", "keyint=1"),
    "h264-one-group": x264("a.mp4", "keyint=300"),
    "h264-single": x264("a.mp4", count=1),
    "h264-two": x264("a.mp4", count=2),
    "h264-flv": x264("a.flv"),
    "h264-raw": x264("a.h264", container="h264"),
    "h264-fragmented": x264("a.mp4", muxing={"movflags": "frag_keyframe+empty_moov"}),
    "h264-index-first": x264("a.mp4", muxing={"movflags": "faststart"}),
    "h264-in-avi": x264("a.avi"),
    "hevc": Recipe(
        "a.mp4", "libx265", how={"options": {"x265-params": "keyint=12:open-gop=0:log-level=0"}}
    ),
    "hevc-open-gop": Recipe(
        "a.mkv", "libx265", how={"options": {"x265-params": "keyint=12:open-gop=1:log-level=0"}}
    ),
    "hevc-open-gop-in-ts": Recipe(
        "a.ts", "libx265", how={"options": {"x265-params": "keyint=12:open-gop=1:log-level=0"}}
    ),
    "vp9": Recipe(
        "a.webm",
        "libvpx-vp9",
        how={"options": {"g": "12", "auto-alt-ref": "1", "cpu-used": "8", "deadline": "realtime"}},
    ),
    "vp8-hidden": Recipe(
        "a.webm",
        "libvpx",
        how={"options": {"g": "30", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "4"}},
    ),
    "av1": Recipe("a.mkv", "libsvtav1", how={"options": {"g": "12", "preset": "12"}}),
    "mpeg2-in-ts": Recipe("a.ts", "mpeg2video", how={"options": {"bf": "2", "g": "12"}}),
    "mpeg2-in-mpg": Recipe("a.mpg", "mpeg2video", how={"options": {"bf": "2", "g": "12"}}),
    "mpeg4": Recipe("a.mp4", "mpeg4", how={"options": {"bf": "2", "g": "12"}}),
    "mpeg4-in-avi": Recipe("a.avi", "mpeg4", how={"options": {"bf": "2", "g": "12"}}),
    "mjpeg": Recipe("a.mov", "mjpeg", how={"pix_fmt": "yuvj420p"}),
    "flv": Recipe("a.flv", "flv"),
    "gif": Recipe("a.gif", "gif", how={"pix_fmt": "rgb8"}),
}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write each video once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = RECIPES[name].write(tmp_path_factory.mktemp(name))
        return made[name]

    return make


@pytest.fixture(scope="module")
def plain(video: Callable[[str], Path]) -> Callable[[str], Plain]:
    """Decode each video plainly once."""
    return cache(lambda name: decode_plainly(video(name)))


# ---- the same frames as decoding everything ----


@pytest.mark.parametrize("name", RECIPES)
def test_every_tick_shows_what_a_plain_decoder_shows(
    video: Callable[[str], Path], plain: Callable[[str], Plain], name: str
) -> None:
    for rate in RATES:
        assert ticks_of(video(name), rate) == plain(name).at(rate), rate
    assert [(ms, digest_of(rgb)) for ms, rgb in iter_frames(video(name))] == plain(name).native()


@pytest.mark.parametrize("name", RECIPES)
def test_extraction_total_is_spread_over_all_frames_of_a_plain_decoder(
    video: Callable[[str], Path], plain: Callable[[str], Plain], name: str
) -> None:
    native = plain(name).native()
    for total in (1, 7, 1000):
        wanted = [native[number] for number in evenly_spaced(len(native), total)]
        chosen = iter_frames(video(name), extraction_total=total)
        assert [(ms, digest_of(rgb)) for ms, rgb in chosen] == wanted, total


# ---- only what is needed ----


@contextmanager
def planned(path: Path, rate: str) -> Iterator[tuple[PlannedDecoder, CountingCodec]]:
    with open_stream(path, {}) as (container, stream):
        codec: Any = CountingCodec(stream.codec_context)
        assert stream.time_base is not None
        clock = Clock(stream.time_base, container.start_time or 0)
        rule = frame_rule(FrameChoice(parse_fps(rate)), clock)
        gops = GopReader(read_packets(container, stream), codec)
        yield PlannedDecoder(codec, gops, rule), codec


@pytest.mark.parametrize(
    ("name", "most"),
    [("h264", 40), ("h264-all-intra", 4), ("mjpeg", 4), ("vp9", 40), ("mpeg2-in-ts", 40)],
)
def test_at_a_low_rate_most_packets_are_not_decoded(
    video: Callable[[str], Path], name: str, most: int
) -> None:
    with planned(video(name), "1") as (decoder, codec):
        shown = [frame for frame in decoder.selected_frames() if frame.timestamps_ms]
    assert sum(len(frame.timestamps_ms) for frame in shown) == 3
    assert codec.packets <= most  # one more than ticks: the first picture is always decoded


def test_a_frame_shown_at_many_ticks_is_decoded_once(video: Callable[[str], Path]) -> None:
    with planned(video("h264"), "100") as (decoder, codec):
        shown = list(decoder.selected_frames())
    assert len(shown) == codec.packets == 75
    assert sum(len(frame.timestamps_ms) for frame in shown) == 300


@pytest.mark.parametrize("name", ["h264", "h264-open-gop", "hevc-open-gop", "mpeg4"])
def test_only_packets_of_few_gops_are_held(video: Callable[[str], Path], name: str) -> None:
    with planned(video(name), "0.3") as (decoder, _):
        most = 0
        for _frame in decoder.selected_frames():
            most = max(most, sum(len(gop.packets) for gop in decoder._held))
    assert 0 < most <= 3 * 12 + 3


# ---- packets that cannot be trusted ----


def noisy(content: bytes) -> bytes:
    """Overwrite the second half."""
    half = len(content) // 2
    return content[:half] + bytes((17 * n + 5) % 251 for n in range(len(content) - half))


def halved(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize("harm", [noisy, halved])
@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("h264", "mkv"),
        ("h264-open-gop", "mkv"),
        ("h264-intra-refresh", "mkv"),
        ("hevc", "mkv"),
        ("mpeg2-in-ts", "ts"),
        ("mpeg4", "mkv"),
        ("vp9", "webm"),
    ],
)
def test_a_damaged_packet_changes_only_what_it_changes_for_a_plain_decoder(
    video: Callable[[str], Path],
    tmp_path: Path,
    name: str,
    suffix: str,
    harm: Callable[[bytes], bytes],
) -> None:
    for damaged in (5, 12, 30, 37, 38):
        path = remux(
            video(name),
            tmp_path / f"{damaged}.{suffix}",
            lambda number, content, bad=damaged: harm(content) if number == bad else content,
        )
        plain = decode_plainly(path)
        for rate in ("1", "5", "100"):
            assert ticks_of(path, rate) == plain.at(rate), (damaged, rate)


@pytest.mark.parametrize("harm", [noisy, halved, lambda content: None])
@pytest.mark.parametrize("name", ["h264", "h264-open-gop", "hevc-open-gop", "mpeg2-in-ts", "mjpeg"])
def test_damage_is_confined_to_its_gop_and_loses_no_tick(
    video: Callable[[str], Path],
    plain: Callable[[str], Plain],
    tmp_path: Path,
    name: str,
    harm: Callable[[bytes], bytes | None],
) -> None:
    whole = dict(plain(name).at("25"))
    for damaged in (30, 31, 35):
        path = remux(
            video(name),
            tmp_path / f"{damaged}.mkv",
            lambda number, content, bad=damaged: harm(content) if number == bad else content,
        )
        found = ticks_of(path, "25")
        assert [tick for tick, _ in found] == list(whole)
        changed = [tick for tick, digest in found if digest != whole[tick]]
        assert all(23 <= tick <= 37 for tick in changed), changed  # GOPs have 12 pictures


# ---- files of editors and recorders ----


@pytest.mark.parametrize("left_out", [1, 5, 13, 25])
@pytest.mark.parametrize("name", ["h264", "h264-open-gop", "h264-one-group", "mpeg4"])
def test_pictures_hidden_by_an_edit_list_are_not_shown(
    video: Callable[[str], Path], tmp_path: Path, name: str, left_out: int
) -> None:
    path = hide_beginning(video(name), tmp_path / "a.mp4", left_out)
    plain = decode_plainly(path)
    assert len(plain.frames) == 75 - left_out
    for rate in ("1", "5", "100"):
        assert ticks_of(path, rate) == plain.at(rate), rate


IN_TS = ["h264-open-gop-in-ts", "hevc-open-gop-in-ts", "mpeg2-in-ts"]


@pytest.mark.parametrize("name", IN_TS)
def test_recordings_that_start_in_mid_stream_equal_a_plain_decoder(
    video: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    path = tmp_path / "a.ts"
    content = video(name).read_bytes()
    path.write_bytes(content[len(content) // 3 // 188 * 188 :])
    plain = decode_plainly(path)
    for rate in RATES:
        assert ticks_of(path, rate) == plain.at(rate), rate
    native = plain.native()
    for total in (7, len(native) - 1, len(native)):
        wanted = [native[number] for number in evenly_spaced(len(native), total)]
        chosen = iter_frames(path, extraction_total=total)
        assert [(ms, digest_of(rgb)) for ms, rgb in chosen] == wanted, total


@pytest.mark.parametrize("starts_s", [(0, 0), (36_000, 3_600), (0, 7_200), (3_600, 36_000)])
@pytest.mark.parametrize(
    ("codec", "options"),
    [("libx264", B_FRAMES), ("libx265", {"x265-params": "keyint=12:open-gop=1:log-level=0"})],
    ids=["h264", "hevc"],
)
def test_recordings_continue_without_a_gap_if_the_clock_restarts(
    tmp_path: Path, codec: str, options: dict[str, str], starts_s: tuple[int, int]
) -> None:
    """The frame counts were compared with ffmpeg's."""
    how: Any = {"fps": 25, "codec": codec, "options": options}
    frames = textured_frames(50, 96, 64)
    joined, parts = tmp_path / "joined.ts", []
    with joined.open("wb") as file:
        for number, start_s in enumerate(starts_s):
            times = [1000 * start_s + 40 * frame for frame in range(50)]
            part = write_video(tmp_path / f"{number}.ts", frames, times_ms=times, **how)
            file.write(part.read_bytes())
            parts.append(decode_plainly(part))
    first, second = (part.frames for part in parts)
    length = first[0][0] - second[0][0] + round(2 / parts[0].time_base)
    after = [(pts + length, duration, digest) for pts, duration, digest in second]
    whole = Plain([*first, *after], parts[0].time_base, parts[0].start_us)
    for rate in RATES:
        assert ticks_of(joined, rate) == whole.at(rate), rate
    assert [(ms, digest_of(rgb)) for ms, rgb in iter_frames(joined)] == whole.native()


@pytest.mark.parametrize("name", IN_TS)
def test_recordings_whose_clock_may_restart_are_not_divided(
    video: Callable[[str], Path], name: str
) -> None:
    assert divide(video(name), FrameChoice(), segment_s=0.5, max_segments=5) == [WHOLE]


def test_a_recording_whose_size_changes_equals_a_plain_decoder(tmp_path: Path) -> None:
    how: Any = {"fps": 25, "codec": "libx264", "options": B_FRAMES}
    small = write_video(tmp_path / "small.ts", textured_frames(50, 96, 64), **how)
    later = [2000 + 40 * number for number in range(50)]
    large = write_video(tmp_path / "large.ts", textured_frames(50, 128, 96), times_ms=later, **how)
    path = tmp_path / "a.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    plain = decode_plainly(path)
    for rate in RATES:
        assert ticks_of(path, rate) == plain.at(rate), rate


# ---- a video in segments ----


@pytest.mark.parametrize("rate", [None, "2", "23.976"])
@pytest.mark.parametrize(
    "name",
    [
        "h264",
        "h264-pyramid",
        "h264-open-gop",
        "h264-uneven",
        "h264-uneven-open-gop",
        "h264-late",
        "h264-all-intra",
        "hevc",
        "hevc-open-gop",
        "vp9",
        "mpeg4",
        "mjpeg",
    ],
)
def test_joined_segments_equal_the_undivided_video(
    video: Callable[[str], Path], name: str, rate: str | None
) -> None:
    path = video(name)
    segments = divide(path, FrameChoice(), segment_s=0.5, max_segments=5)
    assert len(segments) > 2
    undivided = [(ms, digest_of(rgb)) for ms, rgb in iter_frames(path, rate)]
    assert segments_of(path, segments, rate) == undivided


@pytest.mark.parametrize("rate", [None, "2"])
@pytest.mark.parametrize("name", ["h264-interlaced", "mpeg2-in-mpg", "h264-interlaced-in-ts"])
def test_segments_are_correct_or_refused(
    video: Callable[[str], Path], name: str, rate: str | None
) -> None:
    path = video(name)
    segments = divide(path, FrameChoice(), segment_s=0.5, max_segments=5)
    undivided = [(ms, digest_of(rgb)) for ms, rgb in iter_frames(path, rate)]
    try:
        found = segments_of(path, segments, rate)
    except Irregular:
        return
    assert found == undivided


# ---- bytes ----


class CountingFile(io.BytesIO):
    """A file that counts the bytes read from it."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


class Pipe:
    """A file object without seek."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def read(self, size: int) -> bytes:
        return self._file.read(size)


GROUP = 12
BUFFER = 32 * 1024  # PyAV's


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], bytes]:
    """Megabytes of video: ten seconds at 25 fps, in GOPs of 12 pictures of about equal size."""
    made: dict[str, bytes] = {}

    def make(name: str, flags: str) -> bytes:
        if name + flags not in made:
            path = tmp_path_factory.mktemp("large") / name
            options = {"bf": "2", "g": str(GROUP), "qmin": "2", "qmax": "2", "sc_threshold": "-1"}
            frames = textured_frames(250, 160, 96)
            muxing = {"movflags": flags} if flags else {}
            write_video(path, frames, fps=25, codec="mpeg4", options=options, muxing=muxing)
            made[name + flags] = path.read_bytes()
        return made[name + flags]

    return make


FILES = [  # and the bytes that libav reads to learn the duration, or again at each fragment's end
    ("a.mp4", "", 0),
    ("a.mp4", "faststart", 0),
    ("a.mp4", "frag_keyframe+empty_moov", 21 * BUFFER),
    ("a.mkv", "", 0),
    ("a.ts", "", 250_000),
]


@pytest.mark.parametrize("rate", ["0.3", "5", "100", None])
@pytest.mark.parametrize(("name", "flags", "extra"), FILES)
def test_a_file_is_read_about_once(
    large: Callable[[str, str], bytes], name: str, flags: str, extra: int, rate: str | None
) -> None:
    content = large(name, flags)
    file = CountingFile(content)
    list(iter_frames(file, rate))
    assert file.count <= 1.1 * len(content) + 2 * BUFFER + extra


@pytest.mark.parametrize("rate", ["1", None])
@pytest.mark.parametrize("flags", ["", "faststart"])
def test_half_of_a_video_reads_half_of_its_bytes(
    large: Callable[[str, str], bytes], flags: str, rate: str | None
) -> None:
    content = large("a.mp4", flags)
    index = int.from_bytes(content[content.index(b"moov") - 4 :][:4])
    gop = len(content) * GROUP // 250
    choice = FrameChoice(None if rate is None else parse_fps(rate))
    segments = divide(io.BytesIO(content), choice, segment_s=4, max_segments=2)
    assert len(segments) == 2
    for segment in segments:
        file = CountingFile(content)
        with open_selected(file, choice, segment=segment) as wanted:
            assert list(wanted.frames)
        assert file.count <= len(content) / 2 + 2 * gop + 2 * BUFFER + index


@pytest.mark.parametrize("rate", ["1", "23.976"])
@pytest.mark.parametrize(("name", "flags", "extra"), FILES)
def test_a_source_that_cannot_seek_yields_the_same_frames(
    large: Callable[[str, str], bytes], name: str, flags: str, extra: int, rate: str
) -> None:
    content = large(name, flags)
    pipe: Any = Pipe(content)
    assert ticks_of(pipe, rate) == ticks_of(io.BytesIO(content), rate)
