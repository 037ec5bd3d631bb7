"""Folders of frames as inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from rayclip.errors import UsageError
from rayclip.inputs.videos import iter_rows, iter_videos
from rayclip.output.safe_names import output_name
from rayclip.settings import Settings

FILES = ["b/1.jpg", "b/2.PNG", "b/c.d/1.webp", "a/x/1.jpg", "e/notes.txt", ".h/1.jpg", "b/.i/1.jpg"]
FOUND = ["a/x/", "b/", "b/c.d/"]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for file in FILES:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(**given: Any) -> list[str]:
    return list(iter_videos(Settings(frames_folders=True, **given)))


def test_each_folder_of_images_below_an_input_is_one_input(tree: Path) -> None:
    assert found(video_paths=".") == [f"./{name}" for name in FOUND]
    assert found(video_paths=[str(tree / "b"), "a/"]) == [f"{tree}/b/", f"{tree}/b/c.d/", "a/x/"]


@pytest.mark.parametrize(
    ("pattern", "names"), [("*", FOUND), ("**", FOUND), ("b/c*", ["b/c.d/"]), ("[ab]/?", ["a/x/"])]
)
def test_patterns_stand_for_folders(tree: Path, pattern: str, names: list[str]) -> None:
    assert sorted(found(video_paths=pattern)) == names


def test_links_are_followed_but_not_in_circles(tree: Path) -> None:
    (tree / "a" / "x" / "back").symlink_to(tree / "a")
    (tree / "z").symlink_to(tree / "b")
    assert found(video_paths=["a", "z"]) == ["a/x/", "z/", "z/c.d/"]


@pytest.mark.parametrize("argument", ["", "/", "/*"])
def test_folders_on_a_storage_are_found(memory_url: str, argument: str) -> None:
    for file in FILES:
        MemoryFileSystem().pipe_file(f"{memory_url}/{file}", b"image")
    if argument == "/*":
        MemoryFileSystem().rm(f"{memory_url}/.h", recursive=True)
    assert found(video_paths=memory_url + argument) == [f"{memory_url}/{name}" for name in FOUND]


@pytest.mark.parametrize("argument", ["e", "e/notes.txt", "e/*", "missing"])
def test_an_input_without_such_a_folder_is_refused(tree: Path, argument: str) -> None:
    with pytest.raises(UsageError, match=r"has no folder of images in or below it: name folders"):
        found(video_paths=argument)


def test_a_list_names_the_folders_themselves(tree: Path) -> None:
    (tree / "list.txt").write_text("b\nb/c.d/\na/x#t=1,2\n")
    assert found(file_with_video_paths="list.txt") == ["b/", "b/c.d/", "a/x/#t=1,2"]


def test_a_table_of_folders_may_have_ranges(tree: Path) -> None:
    columns = {"path": ["b", "b/c.d/"], "start_s": [1.0, None], "end_s": [None, 2.5]}
    pq.write_table(pa.table(columns), tree / "list.parquet")
    names = ["b/#t=1", "b/c.d/#t=,2.5"]
    assert found(file_with_video_paths="list.parquet") == names
    settings = Settings(frames_folders=True, file_with_video_paths="list.parquet")
    rows = pa.concat_tables(iter_rows(settings, extra_columns=True))
    assert [name.decode() for name in rows["video"].to_pylist()] == names


@pytest.mark.parametrize(
    ("folder", "by_stem", "by_path"),
    [
        ("v/c.d/", "c.d", "v/c.d"),
        ("v/c.d/#t=1,2", "c.d_1-2", "v/c.d_1-2"),
        ("s3://bucket/v/c.d/", "c.d", "s3/bucket/v/c.d"),
    ],
)
def test_files_are_named_after_the_whole_name_of_a_folder(
    folder: str, by_stem: str, by_path: str
) -> None:
    assert output_name(folder, "stem") == by_stem
    assert output_name(folder, "path") == by_path


def test_folders_of_frames_cannot_be_reencoded() -> None:
    with pytest.raises(UsageError, match="keep_tmp_files re-encodes videos"):
        Settings(frames_folders=True, keep_tmp_files=True)


@pytest.mark.parametrize(("given", "held"), [(None, 1), ("2", 2), ("30000/1001", None)])
def test_the_rate_of_the_images_is_one_by_default(given: Any, held: int | None) -> None:
    fps = Settings(frames_fps=given).frames_fps
    assert fps == held or str(fps) == given
