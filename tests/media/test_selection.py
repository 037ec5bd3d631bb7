"""Selections and ranges yield what a plain decoder of everything yields."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import fsspec
import pytest
from counting_codec import CountingCodec
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mp4_index import Edit, write_edits
from plain_decoder import decode_fully, decode_plainly, digest_of, joined_segments, selected_of
from video_factories import SHARED_DATA, remux, textured_frames, write_video

from rayclip.errors import BadVideo
from rayclip.io.remote import SMALL_BLOCK_BYTES
from rayclip.media.container import open_stream, read_packets
from rayclip.media.frame_choice import FrameChoice
from rayclip.media.frames import divide, iter_frames, open_selected
from rayclip.media.gop import GopReader
from rayclip.media.planning import PlannedDecoder
from rayclip.media.sampling import Clock, frame_rule

COUNT, FPS = 60, 25
B_FRAMES = {"bf": "3", "g": "12", "sc_threshold": "0", "threads": "1"}
SOURCES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "h264": ("mp4", "libx264", {"options": B_FRAMES}),
    "h264-open": ("mp4", "libx264", {"options": {**B_FRAMES, "x264-params": "open-gop=1"}}),
    "h264-one-group": ("mkv", "libx264", {"options": {**B_FRAMES, "g": "300"}}),
    "h264-in-ts": ("ts", "libx264", {"options": B_FRAMES}),
    "hevc-open": (
        "mkv",
        "libx265",
        {"options": {"x265-params": "keyint=12:open-gop=1:log-level=0"}},
    ),
    "mpeg4-in-avi": ("avi", "mpeg4", {"options": {"bf": "2", "g": "12"}}),
    "mpeg4": ("mkv", "mpeg4", {"options": {"bf": "2", "g": "12"}}),
    "vp9": (
        "webm",
        "libvpx-vp9",
        {"options": {"g": "12", "cpu-used": "8", "deadline": "realtime"}},
    ),
    "mjpeg": ("mov", "mjpeg", {"pix_fmt": "yuvj420p"}),
}
MANY = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write(name: str, folder: Path, **how: Any) -> Path:
    suffix, codec, options = SOURCES[name]
    if codec not in av.codecs_available:
        pytest.skip(f"this libav cannot encode {codec}")
    frames = textured_frames(COUNT, 64, 48)
    how = {"fps": FPS, **options, **how}
    return write_video(folder / f"a.{suffix}", frames, codec=codec, **how)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write each video once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = write(name, tmp_path_factory.mktemp(name))
        return made[name]

    return make


# ---- drawn videos, selections and ranges ----

seconds = st.one_of(
    st.none(),
    st.sampled_from([0.0, 0.04, 0.5, 1.0, 1.2, 1.999999, 2.0, 2.4, 3.0]),
    st.floats(0, 4).map(lambda value: round(value, 6)),
)
selections = st.one_of(
    st.builds(FrameChoice, fps=st.sampled_from([*map(Fraction, (1, 5, 100)), Fraction("23.976")])),
    st.builds(FrameChoice, total=st.integers(1, 80)),
    st.builds(FrameChoice, every=st.integers(1, 20)),
    st.just(FrameChoice(keyframes=True)),
    st.just(FrameChoice()),
)
choices = st.builds(
    lambda choice, start, end: replace(choice, start=start, end=end), selections, seconds, seconds
).filter(lambda choice: not choice.is_reversed)
several = st.lists(choices, min_size=4, max_size=8)
uneven_ms = st.lists(st.integers(1, 300), min_size=COUNT - 1, max_size=COUNT - 1)
edit_lists = st.lists(
    st.builds(Edit, st.sampled_from([200, 777, 2000]), st.integers(-1, COUNT * 512 - 1)),
    min_size=1,
    max_size=2,
)


def assert_as_decoded_plainly(path: Path, chosen: list[FrameChoice]) -> None:
    plain = decode_plainly(path)
    assume(plain.frames)
    for choice in chosen:
        assert selected_of(path, choice) == plain.selected(choice), choice


@MANY
@given(name=st.sampled_from(list(SOURCES)), chosen=several)
def test_any_choice_shows_what_a_plain_decoder_shows(
    video: Callable[[str], Path], name: str, chosen: list[FrameChoice]
) -> None:
    assert_as_decoded_plainly(video(name), chosen)


@MANY
@given(
    name=st.sampled_from(["h264", "h264-open", "hevc-open", "vp9"]),
    steps=uneven_ms,
    late_ms=st.sampled_from([0, 700, 1900]),
    sound_ms=st.sampled_from([0, 500]),
    chosen=several,
)
def test_any_choice_of_uneven_and_late_frames_shows_what_a_plain_decoder_shows(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    steps: list[int],
    late_ms: int,
    sound_ms: int,
    chosen: list[FrameChoice],
) -> None:
    times_ms = [late_ms]
    for step in steps:
        times_ms.append(times_ms[-1] + step)
    folder = tmp_path_factory.mktemp("uneven")
    sound = sound_ms if late_ms and SOURCES[name][0] == "mkv" else 0
    assert_as_decoded_plainly(write(name, folder, times_ms=times_ms, silence_ms=sound), chosen)
    shutil.rmtree(folder)


@MANY
@given(name=st.sampled_from(["h264", "h264-open", "mjpeg"]), edits=edit_lists, chosen=several)
def test_any_choice_of_an_edited_video_shows_what_a_plain_decoder_shows(
    video: Callable[[str], Path],
    tmp_path: Path,
    name: str,
    edits: list[Edit],
    chosen: list[FrameChoice],
) -> None:
    path = write_edits(video(name), tmp_path / "edited.mp4", edits)
    assert_as_decoded_plainly(path, chosen)


@MANY
@given(
    name=st.sampled_from(["h264", "h264-open", "hevc-open", "mpeg4", "vp9", "mjpeg"]),
    choice=choices.filter(lambda choice: not choice.is_numbered),
)
def test_segments_of_a_range_equal_the_undivided_range(
    video: Callable[[str], Path], name: str, choice: FrameChoice
) -> None:
    path = video(name)
    whole = selected_of(path, choice)
    assume(len(whole) > 1)
    segments = divide(path, choice, segment_s=0.3, max_segments=5)
    joined = joined_segments(path, segments, choice)
    assert joined == whole or not joined  # then the whole video gives its first frame


def test_a_long_range_is_divided(video: Callable[[str], Path]) -> None:
    choice = FrameChoice(Fraction(5), start=0.7, end=2.2)
    segments = divide(video("h264"), choice, segment_s=0.3, max_segments=5)
    assert len(segments) == 3  # at 0.96, 1.44 and 1.92 s, of 0.7 to 2.2
    joined = joined_segments(video("h264"), segments, choice)
    assert joined == selected_of(video("h264"), choice)


# ---- real videos ----

FILES = sorted(
    path
    for path in SHARED_DATA.glob("videos/**/*")
    if path.is_file() and not path.name.startswith("x_")
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_any_choice_of_a_real_video_shows_what_decoding_everything_shows(path: Path) -> None:
    try:
        plain = decode_fully(path)
    except BadVideo:
        plain = None
    if plain is None or not plain.frames:
        with pytest.raises(BadVideo):
            list(iter_frames(path))
        return
    chosen = [FrameChoice(every=7, end=2), FrameChoice(keyframes=True)]
    selections: list[dict[str, Any]] = [{}, {"fps": Fraction(5)}, {"total": 3}, {"every": 2}]
    chosen += [FrameChoice(**asked, start=0.35, end=1.25) for asked in selections]
    for choice in chosen:
        assert selected_of(path, choice) == plain.selected(choice), choice


# ---- only what is needed ----

HOURS_3 = 3 * 3600
LONG_FPS = 2
GOP_S = 5


class CountingFile(io.BytesIO):
    """A file that counts the bytes read from it."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


@pytest.fixture(scope="module", params=["mp4", "mkv"])
def long_video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Three hours: one GOP of 5 s, copied again and again. The index comes last."""
    folder = tmp_path_factory.mktemp("long")
    frames = textured_frames(LONG_FPS * GOP_S, 64, 48)
    options = {**B_FRAMES, "g": "10", "qp": "8"}
    gop = write_video(folder / "gop.mp4", frames, fps=LONG_FPS, codec="libx264", options=options)
    path = folder / f"long.{request.param}"
    with av.open(str(gop)) as short, av.open(str(path), "w") as output:
        source = short.streams.video[0]
        stream = output.add_stream_from_template(source)
        packets = [packet for packet in short.demux(source) if packet.size]
        unit = int(GOP_S / packets[0].time_base)
        for number in range(HOURS_3 // GOP_S):
            for packet in packets:
                copy = av.Packet(bytes(packet))
                copy.pts, copy.dts = packet.pts + number * unit, packet.dts + number * unit
                copy.duration, copy.time_base = packet.duration, packet.time_base
                copy.is_keyframe, copy.stream = packet.is_keyframe, stream
                output.mux_one(copy)
    return path.read_bytes()


def index_size(content: bytes) -> int:
    """The bytes of an mp4's index; of Matroska, the cues count as part of the file."""
    place = content.rfind(b"moov")
    return int.from_bytes(content[place - 4 : place]) if place >= 0 else 0


@pytest.mark.parametrize(
    "choice",
    [
        FrameChoice(Fraction(1)),
        FrameChoice(),
        FrameChoice(every=7),
        FrameChoice(total=8),
        FrameChoice(keyframes=True),
    ],
    ids=["fps", "native", "every", "total", "keyframes"],
)
def test_a_minute_of_three_hours_reads_under_a_twentieth_besides_the_index(
    long_video: bytes, choice: FrameChoice
) -> None:
    start = 7201.3
    file = CountingFile(long_video)
    reads = 2 if choice.total else 1
    with open_selected(file, replace(choice, start=start, end=start + 60)) as wanted:
        times = [ms for selected in wanted.frames for ms in selected.timestamps_ms]
    expected = {
        "fps": [1000 * (start + n) for n in range(60)],
        "every": [7_201_500.0 + 3500 * n for n in range(18)],
        "keyframes": [1000.0 * s for s in range(7205, 7261, 5)],
    }
    asked = next((name for name in expected if getattr(choice, name)), None)
    if asked is not None:
        assert times == pytest.approx(expected[asked])
    assert len(times) == {None: choice.total or 120}.get(asked, len(times))
    assert file.count <= reads * (index_size(long_video) + len(long_video) / 20)


def test_a_minute_of_a_remote_video_requests_few_blocks(long_video: bytes) -> None:
    requested = []

    class Storage(AbstractFileSystem):
        """A storage whose only file is the video."""

        protocol = "one-video"
        cachable = False

        def info(self, path: str, **options: Any) -> dict[str, Any]:
            return {"name": path, "size": len(long_video), "type": "file"}

        def _open(self, path: str, mode: str = "rb", **options: Any) -> AbstractBufferedFile:
            file = AbstractBufferedFile(self, path, mode, size=len(long_video))
            file._fetch_range = fetch
            return file

    def fetch(start: int, end: int) -> bytes:
        requested.append(end - start)
        return long_video[start:end]

    fsspec.register_implementation(Storage.protocol, Storage, clobber=True)
    choice = FrameChoice(Fraction(1), start=7201.3, end=7261.3)
    with open_selected("one-video://a", choice) as wanted:
        assert len(list(wanted.frames)) == 60
    # the beginning, the index and the range, each with the block after it
    assert sum(requested) <= 7 * SMALL_BLOCK_BYTES


@pytest.mark.parametrize("name", ["h264", "vp9"])
def test_of_keyframes_nothing_else_is_decoded(video: Callable[[str], Path], name: str) -> None:
    with open_stream(video(name), {}) as (container, stream):
        codec: Any = CountingCodec(stream.codec_context)
        assert stream.time_base is not None
        rule = frame_rule(FrameChoice(keyframes=True), Clock(stream.time_base, 0))
        gops = GopReader(read_packets(container, stream), codec)
        shown = list(PlannedDecoder(codec, gops, rule).selected_frames())
    assert [selected.timestamps_ms for selected in shown] == [(480.0 * n,) for n in range(5)]
    assert codec.packets == 5


# ---- videos that mislead ----


@pytest.mark.parametrize(
    "choice",
    [
        FrameChoice(Fraction(5), start=1.5),
        FrameChoice(start=1.5),
        FrameChoice(every=3),
        FrameChoice(total=9, start=0.7, end=2.2),
        FrameChoice(keyframes=True, start=0.3),
    ],
    ids=["fps", "native", "every", "total", "keyframes"],
)
def test_damaged_packets_change_only_what_they_change_for_a_plain_decoder(
    video: Callable[[str], Path], tmp_path: Path, choice: FrameChoice
) -> None:
    for damaged in (30, 37, 38, 41):
        path = remux(
            video("h264"),
            tmp_path / f"{damaged}.mkv",
            lambda number, content, bad=damaged: content[:40] if number == bad else content,
        )
        assert selected_of(path, choice) == decode_plainly(path).selected(choice), damaged


def test_a_range_of_a_source_that_cannot_seek_is_read_from_the_beginning(
    video: Callable[[str], Path],
) -> None:
    class Pipe:
        def __init__(self, content: bytes) -> None:
            self._file = io.BytesIO(content)

        def read(self, size: int) -> bytes:
            return self._file.read(size)

    path = video("h264")
    for choice in ({"every": 5}, {"keyframes": True}, {"extraction_fps": 4}, {}):
        pipe: Any = Pipe(path.read_bytes())
        found = [(ms, digest_of(rgb)) for ms, rgb in iter_frames(pipe, start=1.1, end=2, **choice)]
        again = [(ms, digest_of(rgb)) for ms, rgb in iter_frames(path, start=1.1, end=2, **choice)]
        assert found == again
        assert found


# ---- ranges without a frame ----


@pytest.mark.parametrize(
    ("start", "end", "says"),
    [
        (2.4, None, "it has no frame from 2.4 s to the end, and it lasts 2.4 s"),
        (99, 100, "it has no frame from 99 s to 100 s"),
        (1.001, 1.002, "it has no frame from 1.001 s to 1.002 s"),
        (2, 1, "its range, from 2 s to 1 s, ends before it begins"),
        (1, 1, "its range, from 1 s to 1 s, ends before it begins"),
    ],
)
@pytest.mark.parametrize("choice", [{}, {"every": 2}, {"extraction_total": 3}, {"keyframes": True}])
@pytest.mark.parametrize("name", ["h264", "h264-in-ts"])
def test_a_range_without_a_frame_is_an_error_of_its_own(
    video: Callable[[str], Path], name: str, start: float, end: float, choice: Any, says: str
) -> None:
    with pytest.raises(BadVideo, match=says) as caught:
        list(iter_frames(video(name), start=start, end=end, **choice))
    assert caught.value.code == "empty_range"


def test_at_a_rate_the_frame_on_the_screen_is_shown_for_the_shortest_range(
    video: Callable[[str], Path],
) -> None:
    native = dict(decode_plainly(video("h264")).native())
    shown = [
        (ms, digest_of(rgb)) for ms, rgb in iter_frames(video("h264"), 1, start=1.01, end=1.02)
    ]
    assert shown == [(1010.0, native[1000.0])]


def test_the_frame_on_the_screen_may_end_a_microsecond_later(
    video: Callable[[str], Path],
) -> None:
    path = video("h264")
    native = dict(decode_plainly(path).native())
    for start, shown in ((1.999999, 1960.0), (2.0, 2000.0), (1.919999, 1880.0)):
        choice = FrameChoice(Fraction(1, 60), start=start)
        assert selected_of(path, choice) == [(start * 1000, native[shown])]


def test_ranges_that_join_yield_what_the_undivided_video_yields(
    video: Callable[[str], Path],
) -> None:
    path = video("h264-open")
    whole = selected_of(path, FrameChoice(Fraction(5)))
    parts = [FrameChoice(Fraction(5), start=s, end=s + 0.6) for s in (0.0, 0.6, 1.2, 1.8)]
    assert [frame for part in parts for frame in selected_of(path, part)] == whole


@pytest.mark.parametrize(
    "options",
    [
        {"every": 0},
        {"extraction_fps": 1, "every": 2},
        {"every": 2, "keyframes": True},
        {"start": -1},
        {"end": "soon"},
    ],
)
def test_options_that_make_no_sense_are_value_errors(options: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        next(iter_frames("never opened", **options))


@pytest.mark.parametrize("name", ["h264", "h264-open", "hevc-open", "mpeg4", "vp9", "mjpeg"])
def test_decoding_starts_shortly_before_a_range(
    video: Callable[[str], Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[int | None] = []
    init = PlannedDecoder.__init__

    def recorded(self: PlannedDecoder, *args: Any, since: int | None, **others: Any) -> None:
        starts.append(since)
        init(self, *args, since=since, **others)

    monkeypatch.setattr(PlannedDecoder, "__init__", recorded)
    with open_selected(video(name), FrameChoice(start=1.5)) as wanted:
        assert list(wanted.frames)
    assert starts != [None]
    assert len(starts) == 1
