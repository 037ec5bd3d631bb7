"""Real packets in GOPs; none is lost if they cannot be grouped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import av
import pytest
from video_factories import hide_beginning, textured_frames, write_video

from rayclip.media import gop as gop_module
from rayclip.media.gop import Gop, GopReader, Irregular

COUNT, GROUP = 36, 12
X264 = {"g": str(GROUP), "bf": "2", "sc_threshold": "0", "threads": "1"}
Packets = list[Any]


def write(folder: Path, name: str, codec: str, options: dict[str, str], **how: Any) -> Path:
    if codec not in av.codecs_available:
        pytest.skip(f"this libav cannot encode {codec}")
    frames = textured_frames(COUNT)
    return write_video(folder / name, frames, fps=25, codec=codec, options=options, **how)


@contextmanager
def demuxed(path: Path) -> Iterator[tuple[Packets, Any]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        yield packets, stream.codec_context


def grouped(path: Path) -> list[Gop]:
    with demuxed(path) as (packets, codec):
        return list(GopReader(iter(packets), codec))


def times_of(gops: list[Gop]) -> list[int]:
    """pts in presentation order: leading pictures come before their random access point."""
    return [picture.pts for gop in gops for picture in [*gop.leading, *gop.trailing]]


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("closed"), "a.mp4", "libx264", X264)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = {**X264, "x264-params": "open-gop=1:b-adapt=0"}
    return write(tmp_path_factory.mktemp("opened"), "a.mp4", "libx264", options)


# ---- GOPs ----


def test_closed_gops_have_no_leading_pictures(closed: Path) -> None:
    gops = grouped(closed)
    assert [len(gop.packets) for gop in gops] == [GROUP] * 3
    assert not any(gop.leading for gop in gops)
    assert [len(gop.trailing) for gop in gops] == [GROUP] * 3


def test_pictures_shown_before_the_start_of_an_open_gop_are_leading(
    opened: Path,
) -> None:
    gops = grouped(opened)
    assert not gops[0].leading
    assert all(gop.leading for gop in gops[1:])
    for gop in gops:
        assert all(picture.pts < gop.start for picture in gop.leading)
        assert all(picture.pts >= gop.start for picture in gop.trailing)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", X264),
        ("a.mkv", "libx264", {**X264, "x264-params": "open-gop=1"}),
        ("a.ts", "libx264", {**X264, "x264-params": "open-gop=1"}),
        ("a.mkv", "libx265", {"x265-params": "keyint=12:open-gop=1:log-level=0"}),
        ("a.ts", "mpeg2video", {"g": "12", "bf": "2"}),
        ("a.mp4", "mpeg4", {"g": "12", "bf": "2"}),
    ],
)
def test_gops_contain_every_picture_in_presentation_order(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    path = write(tmp_path, name, codec, options)
    with av.open(str(path)) as container:
        shown = [frame.pts for frame in container.decode(video=0)]
    assert times_of(grouped(path)) == shown


def test_a_picture_has_the_position_of_its_packet(opened: Path) -> None:
    for gop in grouped(opened):
        for picture in [*gop.leading, *gop.trailing]:
            assert gop.packets[picture.position].pts == picture.pts


def test_an_intra_refresh_video_is_one_gop(tmp_path: Path) -> None:
    options = {**X264, "bf": "0", "x264-params": "intra-refresh=1"}
    (gop,) = grouped(write(tmp_path, "a.mp4", "libx264", options))
    assert len(gop.packets) == len(gop.trailing) == COUNT


def test_every_picture_of_mjpeg_is_a_gop(tmp_path: Path) -> None:
    gops = grouped(write(tmp_path, "a.mov", "mjpeg", {}, pix_fmt="yuvj420p"))
    assert [len(gop.packets) for gop in gops] == [1] * COUNT


def test_no_packets_yield_no_gops(closed: Path) -> None:
    with demuxed(closed) as (_, codec):
        reader = GopReader(iter([]), codec)
        assert list(reader) == []
        assert list(reader.remaining_packets()) == []


def test_reading_stops_at_the_next_random_access_point(closed: Path) -> None:
    with demuxed(closed) as (packets, codec):
        source = iter(packets)
        next(iter(GopReader(source, codec)))
        assert len(list(source)) == COUNT - GROUP - 1


# ---- streams without usable GOPs ----


def without_its_time(packet: Any) -> None:
    packet.pts = None


def damaged(packet: Any) -> None:
    packet.is_corrupt = True


def ids(packets: Any) -> list[int]:
    return [id(packet) for packet in packets]


@pytest.mark.parametrize("harm", [without_its_time, damaged])
@pytest.mark.parametrize("open_gop", [False, True])
def test_after_a_bad_packet_every_packet_remains_once(
    closed: Path, opened: Path, open_gop: bool, harm: Callable[[Any], None]
) -> None:
    for number in range(COUNT):
        with demuxed(opened if open_gop else closed) as (packets, codec):
            harm(packets[number])
            reader = GopReader(iter(packets), codec)
            given: list[Gop] = []
            with pytest.raises(Irregular):
                given.extend(reader)
            got = chain.from_iterable(gop.packets for gop in given)
            assert ids([*got, *reader.remaining_packets()]) == ids(packets), number


@pytest.mark.parametrize("taken", range(4))
def test_the_remaining_packets_are_exactly_those_not_in_gops(opened: Path, taken: int) -> None:
    with demuxed(opened) as (packets, codec):
        reader = GopReader(iter(packets), codec)
        gops = iter(reader)
        given = [gop for gop in (next(gops, None) for _ in range(taken)) if gop]
        got = chain.from_iterable(gop.packets for gop in given)
        assert ids([*got, *reader.remaining_packets()]) == ids(packets)


def test_a_gop_too_large_for_memory_is_irregular_but_not_lost(
    closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with demuxed(closed) as (packets, codec):
        first = packets[:GROUP]
        size = sum(packet.size for packet in first) + GROUP * gop_module.PACKET_OVERHEAD
        monkeypatch.setattr(gop_module, "MAX_GOP_BYTES", size - 1)
        reader = GopReader(iter(packets), codec)
        with pytest.raises(Irregular, match="too large"):
            list(reader)
        assert ids(reader.remaining_packets()) == ids(packets)


def test_decoding_times_as_presentation_times_are_irregular(tmp_path: Path) -> None:
    path = write(tmp_path, "a.avi", "libx264", X264)  # AVI has no other times
    with demuxed(path) as (packets, codec):
        reader = GopReader(iter(packets), codec)
        with pytest.raises(Irregular):
            list(reader)
        assert ids(reader.remaining_packets()) == ids(packets)


def test_pictures_hidden_by_an_edit_list_are_fed_but_not_selected(
    closed: Path, tmp_path: Path
) -> None:
    gops = grouped(hide_beginning(closed, tmp_path / "a.mp4", 5))
    assert sum(len(gop.packets) for gop in gops) == COUNT
    assert len(times_of(gops)) == COUNT - 5
