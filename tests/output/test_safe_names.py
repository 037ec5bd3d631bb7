"""Files of a video with any name stay in the output folder and are found by a second run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from run_cli import call

from rayclip.output.array_folder import (
    FEATURES,
    PREDICTIONS_FILE,
    TIMESTAMPS,
    ArrayFolder,
    Extraction,
)
from rayclip.output.safe_names import (
    MAX_NAME,
    MAX_PATH,
    MAX_SUFFIX,
    output_name,
    tar_output_name,
)
from rayclip.settings import Naming

DIM = 4
RESERVED = (["run.json"], ["failures.jsonl"], ["finished_tars"])
NAMINGS = get_args(Naming)
SUFFIXES = (f"{FEATURES}.npy", f"{TIMESTAMPS}.npy", "_fps.pkl", PREDICTIONS_FILE, "_new_fps.mp4")

HOSTILE = [
    "..",
    ".",
    "/",
    "",
    "../x.mp4",
    "../../../../etc/passwd.mp4",
    "/etc/passwd",
    "a/../../../x.mp4",
    "a/..",
    "./..mp4",
    "....//....//x.mp4",
    "..\\..\\x.mp4",
    "C:\\x.mp4",
    "~/x.mp4",
    "~root/x.mp4",
    "a\0b.mp4",
    "a\nb\r.mp4",
    "a\x1b[2Jb.mp4",
    "\u202egpm.4pm",
    "\uff0e\uff0e/x.mp4",
    "\u2024\u2024/x.mp4",
    "caf\udce9.mp4",
    "\ud800.mp4",
    ".hidden.mp4",
    ".0123456789abcdef0123456789abcdef.tmp",
    "x.npy",
    "run.json/x.mp4",
    "failures.jsonl/x.mp4",
    f"{'n' * 300}.mp4",
    f"{'ü' * 150}.mp4",
    f"{'日' * 100}/{'日' * 100}.mp4",
    f"{'f' * 300}/x.mp4",
    f"{'d/' * 2000}x.mp4",
    "http://h/%2e%2e%2fetc%2fpasswd.mp4",
    "http://h/..%2f..%2fx.mp4",
    "http://h/a%00b%0a.mp4",
    "http://h/..%5c..%5cx.mp4",
    "http://../../x.mp4",
    "http://[/x.mp4",
    "http://h",
    "http://h/?x=/../y.mp4",
    "HTTP://h/%2e%2e/x.mp4",
    "file:///../../etc/passwd.mp4",
    "file://../x.mp4",
    "zip://../../x.mp4::a.zip",
    "zip://..::a.zip",
    "../x://y.mp4",
    "s3://bucket/../../x.mp4",
    "s3://b/*?[a].mp4",
    "memory:///../x.mp4",
    "::",
    "://",
    "://..",
    "..://..",
]


def stays_inside(name: str) -> bool:
    """Whether all files of this name are strictly below the folder, in names that it can have."""
    folders = name.split("/")[:-1]
    if any(folder in ("", ".", "..") for folder in folders) or "\0" in name or "\\" in name:
        return False
    for suffix in SUFFIXES:
        path = os.path.normpath(f"/out/clip/demo/{name}{suffix}")
        if not path.startswith("/out/clip/demo/") or path != f"/out/clip/demo/{name}{suffix}":
            return False
        if any(len(os.fsencode(part)) > MAX_NAME for part in path.split("/")):
            return False
    return len(os.fsencode(name)) <= MAX_PATH and folders[:1] not in RESERVED


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("video", HOSTILE)
def test_hostile_names_stay_inside(video: str, naming: str) -> None:
    assert stays_inside(output_name(video, naming))


DANGEROUS = [
    "..",
    ".",
    "/",
    "//",
    "\\",
    "%2e%2e",
    "%2f",
    "%00",
    "::",
    "://",
    "http://",
    "file://",
    "zip://",
    "~",
    "?",
    "#",
    "run.json",
    "a",
    "ü",
]
PIECES = st.sampled_from([*DANGEROUS, "\0", "\n", "\udce9", "\ud800", "x" * 250, "日" * 90])


@given(st.one_of(st.text(), st.lists(PIECES).map("".join)), st.sampled_from(NAMINGS))
def test_every_name_stays_inside(video: str, naming: str) -> None:
    assert stays_inside(output_name(video, naming))


@given(st.text(st.characters(codec="utf-8", exclude_characters="/\0\\"), max_size=59))
def test_names_of_usual_lengths_are_those_of_video_features(name: str) -> None:
    assert output_name(f"videos/{name}.mp4", "stem") == Path(f"videos/{name}.mp4").stem


def test_the_longest_name_that_fits_is_kept() -> None:
    most = MAX_NAME - MAX_SUFFIX
    assert output_name(f"{'n' * most}.mp4", "stem") == "n" * most
    assert output_name(f"{'n' * (most + 1)}.mp4", "stem") != "n" * (most + 1)


def test_a_long_name_is_cut_between_characters_and_ends_in_a_hash() -> None:
    one, other = (output_name(f"{'日' * 100}{end}.mp4", "stem") for end in "ab")
    assert one != other
    assert one.rpartition("~")[0] == "日" * 73
    assert one == output_name(f"elsewhere/{'日' * 100}a.mp4", "stem")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a\0b", "a_b"),
        ("a\0b", "a\\b"),
        ("a\\b", "a_b"),
        (f"{'d/' * 1000}x", f"{'d/' * 1001}x"),
        ("\ud800", "\ud801"),
    ],
)
def test_changed_names_stay_different(one: str, other: str) -> None:
    for naming in NAMINGS:
        if naming == "path" or "/" not in one:
            assert output_name(f"{one}.mp4", naming) != output_name(f"{other}.mp4", naming)


@pytest.mark.parametrize(
    ("video", "name"),
    [
        ("https://user:secret@host:8080/a/b%20c.mp4?token=x/y#z", "https/host:8080/a/b c"),
        ("s3://bucket/a/b.mp4", "s3/bucket/a/b"),
        ("zip://a/b.mp4::s3://bucket/x.zip", "zip/a/b"),
        ("/videos/a/../b.mp4", "videos/b"),
        ("../a/b.mp4", "a/b"),
    ],
)
def test_naming_by_paths_gives_folders_like_the_inputs_without_secrets(
    video: str, name: str
) -> None:
    assert output_name(video, "path") == name


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("storage", ["local", "memory"])
def test_files_of_hostile_names_are_written_and_found_again(
    storage: str, naming: str, tmp_path: Path, memory_url: str
) -> None:
    url = str(tmp_path / "deep" / "out") if storage == "local" else f"{memory_url}/deep/out"
    folder = ArrayFolder(url, DIM, {}, naming=naming)
    folder.prepare()
    folder.write_run({"model_name": "demo"})
    names = {output_name(video, naming) for video in HOSTILE}
    if storage == "memory":
        names = {name for name in names if not any("\udc80" <= c <= "\udcff" for c in name)}
    for name in names:
        folder.commit(name, Extraction(np.ones((2, DIM), np.float32), np.arange(2.0), 25.0), b"")
    done = folder.done()
    assert all(name in done and folder.committed_frames(name) == 2 for name in names)
    assert len(done) == len(names)
    assert os.listdir(tmp_path) == (["deep"] if storage == "local" else [])
    if storage == "local":
        assert os.listdir(tmp_path / "deep") == ["out"]
    folder.write_failures([{"video": "a"}])
    assert folder.read_run() == {"model_name": "demo"}


@pytest.mark.parametrize("naming", NAMINGS)
def test_a_second_run_finds_a_name_that_was_too_long(naming: str, tmp_path: Path) -> None:
    import shapes

    folder = tmp_path / ("f" * 255)
    folder.mkdir()
    video = folder / f"{'n' * 251}.mp4"
    shapes.write_video(tmp_path / "short.mp4", [("red", "circle")], fps=5, seconds_per_scene=0.4)
    (tmp_path / "short.mp4").rename(video)
    words = ["extract", video, "--model-name", "demo", "--address", "none", "--naming", naming]
    words += ["--on-extraction", "save_numpy", "--output-path", tmp_path / "out"]
    first = call(*words)
    assert first.status == 0, first.stderr
    assert "1 done before" in call(*words).stderr


@pytest.mark.parametrize("naming", NAMINGS)
def test_names_on_other_storages_are_utf8_and_stay_different(
    naming: Naming, memory_url: str, tmp_path: Path
) -> None:
    videos = ["a/caf\udce9.mp4", "a/caf\udce8.mp4", "a/caf\u00e9.mp4", "a/caf_.mp4"]
    remote, local = (
        ArrayFolder(url, DIM, {}, naming=naming) for url in (memory_url, str(tmp_path))
    )
    names = [remote.name_of(video) for video in videos]
    assert len({name.encode() for name in names}) == len(videos)
    assert names[2:] == [local.name_of(video) for video in videos[2:]]
    assert [local.name_of(video) for video in videos] == [output_name(v, naming) for v in videos]


@pytest.mark.parametrize("naming", NAMINGS)
@given(tar=st.text(min_size=1), member=st.text(min_size=1))
@example(tar="finished_tars", member="//a/b.mp4")
@example(tar=".", member="a.mp4")
@example(tar="a/..", member="b.mp4")
def test_videos_in_a_tar_file_are_in_a_folder_of_its_name(
    naming: str, tar: str, member: str
) -> None:
    folder = tar_output_name(f"{tar}.tar", naming)
    name = tar_output_name(f"{tar}.tar/{member}", naming)
    assert stays_inside(name)
    assert name.startswith(f"{folder}/") or ".tar/" in f"{tar}.tar".lower()
    assert [folder] not in RESERVED
