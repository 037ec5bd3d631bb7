"""The videos of a tar file, read once and forward, with the texts of their samples."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tar_factories import write_tar

from rayclip.errors import BadVideo, VideoError
from rayclip.inputs.tar_videos import TarVideos

FILES = {
    "0000.mp4": b"a" * 3000,
    "0000.json": b'{"n": 1}',
    "0001.txt": "größer".encode(),
    "0001.webm": b"b" * 700,
    "clips/0002.left.mp4": b"c" * 20_000,
    "clips/0002.left.json": b"{}",
    "clips/0002.right.mp4": b"d",
    "clips/0002.txt": b"of both",
    "0003.jpg": b"not a video",
    "._0000.mp4": b"left by macOS",
}
VIDEOS = ["0000.mp4", "0001.webm", "clips/0002.left.mp4", "clips/0002.right.mp4"]
ROWS = [
    {"json": '{"n": 1}', "txt": None},
    {"json": None, "txt": "größer"},
    {"json": "{}", "txt": "of both"},
    {"json": None, "txt": "of both"},
]


def read(path: Path, *passed_over: str) -> tuple[list[str], int]:
    """The names of the videos that are read, and how many there are."""
    videos = TarVideos(str(path), {})
    numbers = iter(range(100))
    found = videos.read(lambda name: None if name in passed_over else next(numbers))
    return [video.member for video in found], videos.count


@pytest.fixture(scope="module")
def tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tar(tmp_path_factory.mktemp("tars") / "a.tar", FILES)


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz")]
)
def test_videos_come_in_order_with_their_bytes_and_texts(
    name: str, mode: str, tmp_path: Path
) -> None:
    path = write_tar(tmp_path / name, FILES, mode)
    positions = iter(range(4))
    found = [
        (video.position, video.member, video.content.read(), *video.columns.to_pylist())
        for video in TarVideos(str(path), {}).read(lambda _: next(positions))
    ]
    assert found == [
        (i, name, FILES[name], row) for i, (name, row) in enumerate(zip(VIDEOS, ROWS, strict=True))
    ]


def test_a_video_may_be_passed_over_and_still_counts(tar: Path) -> None:
    assert read(tar, "0000.mp4", "clips/0002.right.mp4") == (VIDEOS[1:3], 4)


def test_a_video_larger_than_memory_allows_goes_through_a_file(
    tar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rayclip.inputs.tar_videos.MAX_HELD_BYTES", 1000)
    sizes = [len(video.content.read()) for video in TarVideos(str(tar), {}).read(lambda _: 0)]
    assert sizes == [len(FILES[name]) for name in VIDEOS]


def test_videos_with_the_same_name_up_to_the_first_dot_need_not_all_be_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rayclip.inputs.tar_videos.MAX_HELD_BYTES", 3000)
    names = [f"v1.{number}" for number in range(9)]
    files = {"v1.txt": b"of all"}
    for name in names:
        files |= {f"{name}.json": name.encode(), f"{name}.mp4": bytes(1000)}
    listed: list[str] = []

    def position_of(name: str) -> int:
        listed.append(name)
        return len(listed)

    videos = TarVideos(str(write_tar(tmp_path / "a.tar", files)), {}).read(position_of)
    for number, (name, video) in enumerate(zip(names, videos, strict=True)):
        assert video.member == f"{name}.mp4"
        assert video.columns.to_pylist() == [{"json": name, "txt": "of all"}]
        assert len(listed) <= number + 3


def test_a_text_that_is_too_large_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rayclip.inputs.tar_videos.MAX_TEXT_BYTES", 1000)
    files = {"a.json": bytes(1001), "a.mp4": b"a", "a.txt": b"x" * 1000}
    (video,) = TarVideos(str(write_tar(tmp_path / "a.tar", files)), {}).read(lambda _: 0)
    assert video.columns.to_pylist() == [{"json": None, "txt": "x" * 1000}]


@given(st.data())
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_tar_file_that_was_cut_anywhere_is_damaged(
    tar: Path, tmp_path: Path, data: st.DataObject
) -> None:
    """Also between two of its files, where tarfile itself sees a regular end."""
    content = tar.read_bytes()
    with tarfile.open(tar) as archive:
        *_, last = archive
    end = last.offset_data + 512  # of the last file; what comes then are only zeros
    at = data.draw(st.integers(1, end) | st.integers(1, end // 512).map(lambda block: 512 * block))
    cut = tmp_path / "cut.tar"
    cut.write_bytes(content[:at])
    passed_over = data.draw(st.sets(st.sampled_from(VIDEOS)))
    videos = TarVideos(str(cut), {})
    whole: list[str] = []

    def read_all() -> None:
        for video in videos.read(lambda name: None if name in passed_over else 0):
            whole.append(video.member)
            assert video.content.read() == FILES[video.member]

    with pytest.raises(BadVideo, match="damaged or truncated"):
        read_all()
    assert whole == [name for name in VIDEOS if name not in passed_over][: len(whole)]


def test_a_damaged_header_is_not_taken_for_the_end(tar: Path, tmp_path: Path) -> None:
    with tarfile.open(tar) as archive:
        header = archive.getmember("0001.txt").offset
    content = bytearray(tar.read_bytes())
    content[header + 150] ^= 1  # in its checksum
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(content)
    with pytest.raises(BadVideo, match=r"damaged or truncated \(bad checksum\)"):
        read(damaged)


@pytest.mark.parametrize(
    ("content", "code"), [(None, "not_found"), (b"", "empty_file"), (b"a text", "tar_damaged")]
)
def test_what_is_no_tar_file_has_a_code(content: bytes | None, code: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoError) as raised:
        read(path)
    assert raised.value.code == code
