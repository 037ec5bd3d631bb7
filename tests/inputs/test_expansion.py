"""Expansion of arguments: videos, folders and patterns, local and remote."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fsspec
import pytest

from rayclip.errors import UsageError
from rayclip.inputs.expansion import expand
from rayclip.io.remote import file_system

FILES = ["b.mp4", "a.MKV", "notes.txt", ".hidden.mp4", "c/d.webm", "c/x.mp4", "c.mp4", ".git/e.mp4"]
IN_ORDER = ["a.MKV", "b.mp4", "c.mp4", "c/d.webm", "c/x.mp4"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FILES:
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def stored(memory_url: str) -> str:
    for name in FILES:
        with fsspec.open(f"{memory_url}/videos/{name}", "wb") as file:
            file.write(b"x")
    return memory_url


def found(*arguments: str, excluded: str | None = None) -> list[str]:
    return list(expand(arguments, {}, excluded))


@pytest.mark.parametrize(
    ("argument", "videos"),
    [
        ("videos", [f"videos/{name}" for name in IN_ORDER]),
        ("videos/", [f"videos/{name}" for name in IN_ORDER]),
        ("videos/*.mp4", ["videos/b.mp4", "videos/c.mp4"]),
        ("videos/**/*.mp4", ["videos/b.mp4", "videos/c.mp4", "videos/c/x.mp4"]),
        ("videos/n*", ["videos/notes.txt"]),
        ("videos/[ab].*", ["videos/a.MKV", "videos/b.mp4"]),
        ("nowhere.mp4", ["nowhere.mp4"]),
    ],
)
def test_an_argument_expands_to_its_videos_in_order(
    folder: Path, argument: str, videos: list[str]
) -> None:
    assert found(argument) == videos


@pytest.mark.parametrize("name", ["a[1].mp4", "what?.mp4", "*.mp4"])
def test_an_existing_name_is_not_a_pattern(folder: Path, name: str) -> None:
    Path(name).touch()
    Path("a1.mp4").touch()
    assert found(name) == [name]


@pytest.mark.parametrize(
    ("argument", "expanded"),
    [
        ("c-{008..010}.tar", ["c-008.tar", "c-009.tar", "c-010.tar"]),
        ("s3://b/{x,y}/1.tar.gz", ["s3://b/x/1.tar.gz", "s3://b/y/1.tar.gz"]),
        ("{a.tar", ["{a.tar"]),
        ("{a,b}.mp4", ["{a,b}.mp4"]),
        ("{there}.tar", ["{there}.tar"]),
    ],
)
def test_braces_in_names_of_tar_files_are_expanded(
    folder: Path, argument: str, expanded: list[str]
) -> None:
    (folder / "{there}.tar").touch()
    assert found(argument) == expanded


def test_arguments_keep_their_order(folder: Path) -> None:
    assert found("z.mp4", "videos/c", "a.mp4") == [
        "z.mp4",
        "videos/c/d.webm",
        "videos/c/x.mp4",
        "a.mp4",
    ]


def test_links_are_followed_but_not_in_cycles(folder: Path) -> None:
    os.symlink("..", "videos/c/back")
    os.symlink("../videos/c", "empty/link")
    assert found("videos") == [f"videos/{name}" for name in IN_ORDER]
    linked = ["back/a.MKV", "back/b.mp4", "back/c.mp4", "d.webm", "x.mp4"]
    assert found("empty") == [f"empty/link/{name}" for name in linked]


def test_a_folder_named_like_a_pattern_is_a_folder(folder: Path) -> None:
    Path("a[1]").mkdir()
    with pytest.raises(UsageError, match=r"The folder a\[1\]"):
        found("a[1]")


def test_an_excluded_folder_is_skipped(folder: Path) -> None:
    assert found("videos", excluded="videos/c") == ["videos/a.MKV", "videos/b.mp4", "videos/c.mp4"]


def test_names_that_are_not_utf8_are_found(folder: Path) -> None:
    (folder / "empty" / os.fsdecode(b"caf\xe9.mp4")).touch()
    assert list(map(os.fsencode, found("empty"))) == [b"empty/caf\xe9.mp4"]


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("empty", "The folder empty has no files with a video suffix"),
        ("videos/*.avi", r"No file matches videos/\*\.avi"),
        ("nosuch://x/a.mp4", r"nosuch://x/a.mp4 cannot be read \(Protocol not known"),
    ],
)
def test_arguments_without_videos_are_refused_in_one_sentence(
    folder: Path, argument: str, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        found(argument)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "videos"),
    [
        ("/videos", IN_ORDER),
        ("/videos/", IN_ORDER),
        ("/videos/*.mp4", [".hidden.mp4", "b.mp4", "c.mp4"]),
        ("/videos/c/*", ["c/d.webm", "c/x.mp4"]),
        ("/videos/b.mp4", ["b.mp4"]),
        ("/videos/notes.txt", ["notes.txt"]),
    ],
)
def test_folders_and_patterns_may_be_urls(stored: str, pattern: str, videos: list[str]) -> None:
    assert found(stored + pattern) == [f"{stored}/videos/{name}" for name in videos]


@pytest.mark.parametrize("pattern", ["/nowhere/", "/videos/*.avi"])
def test_urls_without_videos_are_refused(stored: str, pattern: str) -> None:
    with pytest.raises(UsageError, match=r"no files with a video suffix|No file matches"):
        found(stored + pattern)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:9/*.mp4", "https://host/a?b=[c]", "zip://*.mp4::a.zip", "reference://x/"],
)
def test_urls_that_cannot_be_listed_are_not_expanded(url: str) -> None:
    assert found(url) == [url]


def test_urls_with_a_video_suffix_cost_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("a storage was asked")

    monkeypatch.setattr("rayclip.inputs.expansion.file_system", refused)
    assert found("s3://bucket/a.mp4") == ["s3://bucket/a.mp4"]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(protocol: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.get_filesystem_class", missing)
    with pytest.raises(ImportError, match=r"pip install 'rayclip\[s3\]'"):
        file_system("s3://bucket/a.mp4", {})
    with pytest.raises(UsageError, match=r"cannot be read \(.*pip install gcsfs"):
        found("gs://bucket/a.mp4")
