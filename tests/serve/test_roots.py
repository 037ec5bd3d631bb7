"""Which files may be shown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rayclip.errors import UsageError
from rayclip.serve.roots import Roots, recorded_folders


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    (tmp_path / "videos/inner").mkdir(parents=True)
    (tmp_path / "videos-of-others").mkdir()
    for name in ("videos/a.mp4", "videos/inner/b.mp4", "videos-of-others/c.mp4", "secret"):
        (tmp_path / name).touch()
    (tmp_path / "videos/out.mp4").symlink_to(tmp_path / "secret")
    (tmp_path / "videos/folder").symlink_to(tmp_path / "videos-of-others")
    (tmp_path / "videos/around.mp4").symlink_to(tmp_path / "videos/inner/b.mp4")
    return tmp_path / "videos"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.mp4", "a.mp4"),
        ("inner/b.mp4", "inner/b.mp4"),
        ("inner/../a.mp4", "a.mp4"),
        ("around.mp4", "inner/b.mp4"),
        ("out.mp4", None),
        ("folder/c.mp4", None),
        ("../secret", None),
        ("../videos-of-others/c.mp4", None),
        ("inner", None),
        ("gone.mp4", None),
        ("a\0.mp4", None),
    ],
)
def test_only_files_below_a_root_are_allowed(videos: Path, name: str, expected: str | None) -> None:
    allowed = Roots([str(videos)]).allowed(f"{videos}/{name}")
    assert allowed == (expected and str(videos / expected))


def test_a_root_may_be_a_link(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(videos)
    assert Roots([str(tmp_path / "link")]).allowed(str(videos / "a.mp4"))


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        ("s3://bucket/videos/a.mp4", True),
        ("s3://bucket/videos", False),
        ("s3://bucket/videos-of-others/a.mp4", False),
        ("s3://bucket/videos/../secret", False),
        ("s3://bucket/videos/%2E%2e/secret", False),
        ("s3://bucket/videos/a::file:///etc/passwd", False),
        ("file:///etc/passwd", False),
    ],
)
def test_urls_are_compared_with_their_root(url: str, is_allowed: bool) -> None:
    assert bool(Roots(["s3://bucket/videos"]).allowed(url)) == is_allowed


def test_without_roots_nothing_is_allowed(videos: Path) -> None:
    assert Roots([]).allowed(str(videos / "a.mp4")) is None


def test_a_root_that_does_not_exist_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no folder"):
        Roots([str(tmp_path / "gone")])


@pytest.mark.parametrize(
    "paths",
    [["inner/b.mp4", "a.mp4"], ["."], ["*.mp4"], ["inner/../*/b.mp4"], ["a.mp4", 7, "gone"]],
)
def test_the_folders_of_a_run_are_those_of_its_inputs(videos: Path, paths: list[str]) -> None:
    inputs = {"video_paths": paths, "folder": str(videos)}
    assert recorded_folders({"inputs": [inputs]}) == [str(videos)]


def test_the_folders_of_a_run_are_those_of_the_videos_in_its_list(
    videos: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text("inner/b.mp4\ns3://bucket/c.mp4\n")
    inputs = {"file_with_video_paths": str(tmp_path / "list.txt"), "folder": str(videos)}
    assert recorded_folders({"inputs": [inputs]}) == [str(videos / "inner")]


@pytest.mark.parametrize(
    "run", [{}, {"inputs": 7}, {"inputs": [7, {"folder": 7}, {"folder": "/"}]}]
)
def test_a_record_may_say_nothing(run: dict[str, Any]) -> None:
    assert recorded_folders(run) == []
    assert all(not record["video_paths"] for record in Roots([]).inputs_below(run.get("inputs")))


def test_inputs_outside_the_roots_are_not_looked_at(videos: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    inside = ["a.mp4", str(videos), f"{videos}/*.mp4"]
    outside = ["/", "../*", "folder/*", str(tmp_path), "/**/*.mp4", "s3://bucket/x", "http://h/a"]
    for listed in ("-", "http://h/list.txt", "/dev/zero", str(tmp_path / "pipe"), 7):
        record = {"video_paths": inside + outside, "file_with_video_paths": listed}
        found = Roots([str(videos)]).inputs_below([{**record, "folder": str(videos)}])[0]
        assert found["video_paths"] == inside
        assert found["file_with_video_paths"] is None
