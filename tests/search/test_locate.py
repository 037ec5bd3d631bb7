"""Finding the videos of an output folder again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rayclip.errors import UsageError
from rayclip.inputs.record import merge_inputs, record_inputs
from rayclip.output.array_folder import ArrayFolder
from rayclip.output.shards import ShardFolder
from rayclip.search.locate import locate
from rayclip.settings import Settings


def files(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def by_stem(nested: bool = False) -> ArrayFolder:
    return ArrayFolder("features", 4, {}, naming="path" if nested else "stem")


def run_of(
    folder: Path, *paths: str, listed: str | None = None, **options: Any
) -> dict[str, object]:
    settings = Settings(video_paths=paths, file_with_video_paths=listed, **options)
    return {"inputs": [record_inputs(settings, str(folder))]}


@pytest.mark.parametrize("given", ["videos", "videos/*.mp4", "videos/cat.mp4"])
def test_videos_are_found_where_the_run_got_them(tmp_path: Path, given: str) -> None:
    files(tmp_path / "videos/cat.mp4")
    found = locate({"cat": None}, by_stem(), run_of(tmp_path, given), None, {})
    assert found == {"cat": str(tmp_path / "videos/cat.mp4")}


def test_videos_of_a_list_are_found(tmp_path: Path) -> None:
    files(tmp_path / "cat.mp4")
    (tmp_path / "list.txt").write_text("cat.mp4\ngone.mp4\n")
    run = run_of(tmp_path, listed=str(tmp_path / "list.txt"))
    assert list(locate({"cat": None, "gone": None}, by_stem(), run, None, {})) == ["cat"]


def test_names_with_folders_are_found(tmp_path: Path) -> None:
    files(tmp_path / "a/cat.mp4", tmp_path / "b/cat.mp4")
    found = locate({"b/cat": None}, by_stem(nested=True), run_of(tmp_path, "a", "b"), None, {})
    assert found == {"b/cat": str(tmp_path / "b/cat.mp4")}


@pytest.mark.parametrize("ignore_ranges", [False, True])
def test_rows_with_ranges_are_found(tmp_path: Path, ignore_ranges: bool) -> None:
    files(tmp_path / "cat.mp4")
    listed = tmp_path / "list.csv"
    listed.write_text("path,start_s,end_s\ncat.mp4,0,1.5\n")
    run = run_of(tmp_path, listed=str(listed), ignore_ranges=ignore_ranges)
    name = "cat" if ignore_ranges else "cat_0-1.5"
    here, root = str(tmp_path / "cat.mp4"), str(tmp_path)
    assert locate({name: None}, by_stem(), run, None, {}) == {name: here}
    listed.unlink()
    assert locate({name: None}, by_stem(), run, root, {}) == {name: here}
    row = "cat.mp4#t=0,1.5"  # in shards
    assert locate({row: row}, ShardFolder(root, 4, {}), {}, root, {}) == {row: here}
    assert locate({row: here + "#t=0,1.5"}, by_stem(), {}, None, {}) == {row: here}


def test_a_video_that_is_called_like_a_part_is_itself(tmp_path: Path) -> None:
    files(tmp_path / "cat.mp4", tmp_path / "cat_0-1.mp4")
    found = locate({"cat_0-1": None}, by_stem(), {}, str(tmp_path), {})
    assert found == {"cat_0-1": str(tmp_path / "cat_0-1.mp4")}


def test_folders_of_frames_are_found(tmp_path: Path) -> None:
    files(tmp_path / "old/cat.v/1.jpg", tmp_path / "new/a/cat.v/1.jpg")
    (tmp_path / "list.txt").write_text("old/cat.v\n")
    old, new = f"{tmp_path}/old/cat.v/", f"{tmp_path}/new/a/cat.v/"
    run = run_of(tmp_path, "old", frames_folders=True)
    assert locate({"cat.v": None}, by_stem(), run, None, {}) == {"cat.v": old}
    listed = run_of(tmp_path, listed=str(tmp_path / "list.txt"), frames_folders=True)
    assert locate({"cat.v": None}, by_stem(), listed, None, {}) == {"cat.v": old}
    root = str(tmp_path / "new")
    assert locate({"cat.v": None}, by_stem(), run, root, {}) == {"cat.v": new}
    rows = {"old/cat.v/": "old/cat.v/"}  # in shards
    assert locate(rows, ShardFolder(root, 4, {}), run, root, {}) == {"old/cat.v/": new}


def test_moved_videos_are_found_below_a_root(tmp_path: Path) -> None:
    files(tmp_path / "new/a/cat.mp4", tmp_path / "new/b/cat.mp4", tmp_path / "new/b/dog.mp4")
    folder, root = by_stem(nested=True), str(tmp_path / "new")
    wanted = dict.fromkeys(["videos/b/cat", "videos/b/dog", "videos/c/cow"])
    assert locate(wanted, folder, {}, root, {}) == {
        "videos/b/cat": f"{root}/b/cat.mp4",
        "videos/b/dog": f"{root}/b/dog.mp4",
    }


def test_a_name_that_two_videos_may_have_is_not_guessed(tmp_path: Path) -> None:
    files(tmp_path / "a/cat.mp4", tmp_path / "b/cat.mp4")
    assert locate({"cat": None}, by_stem(), {}, str(tmp_path), {}) == {}


def test_a_root_without_videos_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="has no files with a video suffix"):
        locate({"cat": None}, by_stem(), {}, str(tmp_path / "empty"), {})


@pytest.mark.parametrize("inputs", [None, 3, "x", [None], [{"folder": 1}], [{"folder": "/"}]])
def test_a_record_that_is_not_ours_finds_nothing(inputs: object) -> None:
    assert locate({"cat": None}, by_stem(), {"inputs": inputs}, None, {}) == {}


def test_secrets_in_urls_are_not_recorded(tmp_path: Path) -> None:
    urls = ["https://u:p@host/a.mp4", "https://host/a.mp4?sig=x", "https://host/a.mp4"]
    (record,) = run_of(tmp_path, *urls)["inputs"]  # type: ignore[misc]
    assert record["video_paths"] == urls[2:]


def test_each_run_is_recorded_once_and_the_newest_is_last() -> None:
    first, second = {"video_paths": ["a"]}, {"video_paths": ["b"]}
    assert merge_inputs(None, first) == [first]
    assert merge_inputs([first, second], first) == [second, first]
    assert len(merge_inputs([{"video_paths": [str(n)]} for n in range(99)], first)) == 20
