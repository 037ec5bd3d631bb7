"""``rayclip search`` on a collection of shapes at known seconds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import fsspec
import numpy as np
import pytest
import shapes
from drawn_collection import Scene, is_right, picture_of, write_collection
from run_cli import Finished, call

FPS = 5
FORMATS = ["save_numpy", "save_pickle", "save_parquet"]


class Collection:
    """Videos and their features in each format.

    Attributes:
        folder: has the videos in ``videos``, and features in a folder of each format's name.
        scenes: what they show.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "videos").mkdir()
        self.scenes: list[Scene] = write_collection(folder / "videos", videos=8, scenes=5, seed=3)
        for on_extraction in FORMATS:
            extract(folder / "videos", folder / on_extraction, on_extraction)

    def share_right(self, answers: Sequence[dict[str, Any]]) -> float:
        """The share of answers to queries, named by label, that are right."""
        labels = [Path(answer["query"]).stem for answer in answers]
        right = [
            is_right(answer, label, self.scenes, 1 / FPS)
            for answer, label in zip(answers, labels, strict=True)
        ]
        return float(np.mean(right))


def extract(videos: Path, output: Path | str, on_extraction: str, *words: str) -> None:
    settings = ["--model-name", "demo", "--extraction-fps", str(FPS), "--address", "none"]
    paths = ["--on-extraction", on_extraction, "--output-path", output]
    ended = call("extract", videos, *settings, *paths, *words)
    assert ended.status == 0, ended.stderr


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return Collection(tmp_path_factory.mktemp("collection"))


def search(output: Path | str, *words: str | Path) -> list[dict[str, Any]]:
    ended = call("search", output, *words, "--json")
    assert ended.status == 0, ended.stderr
    found: list[dict[str, Any]] = json.loads(ended.stdout)
    return found


def shown_labels(collection: Collection) -> list[str]:
    return sorted({scene.label for scene in collection.scenes})


@pytest.mark.parametrize("on_extraction", FORMATS)
def test_the_right_moment_comes_first_for_texts(collection: Collection, on_extraction: str) -> None:
    labels = shown_labels(collection)
    answers = search(collection.folder / on_extraction, *labels, "--top", "1")
    assert len(answers) == len(labels) == 40
    assert collection.share_right(answers) >= 0.95


def test_the_right_moment_comes_first_for_pictures(collection: Collection, tmp_path: Path) -> None:
    words: list[str | Path] = ["--top", "1"]
    for seed, label in enumerate(shown_labels(collection)):
        picture_of(label, seed).save(tmp_path / f"{label}.png")
        words += ["--image", tmp_path / f"{label}.png"]
    answers = search(collection.folder / "save_numpy", *words)
    assert len(answers) == 40
    assert collection.share_right(answers) >= 0.95


def test_the_answer_is_the_same_from_a_bucket(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        options = {"key": "k", "secret": "s", "endpoint_url": f"http://{host}:{port}"}
        fs = fsspec.filesystem("s3", **options)
        fs.mkdir("bucket")
        fs.put(f"{collection.folder}/save_numpy/", "bucket/features/", recursive=True)
        words = ["red circle", "blue star", "--top", "3"]
        there = search("s3://bucket/features", *words, "--storage-options", json.dumps(options))
        assert there == search(collection.folder / "save_numpy", *words)
    finally:
        server.stop()


def test_the_json_has_what_the_page_documents(collection: Collection) -> None:
    page = (Path(__file__).parents[2] / "docs/search.md").read_text()
    found = search(collection.folder / "save_numpy", "red circle", "blue star", "--top", "4")
    keys = ["video", "path", "start_s", "end_s", "best_s", "query", "score", "stands_out", "scores"]
    assert all(list(moment) == keys for moment in found)
    assert all(f"`{key}`" in page for key in keys)
    assert [m["stands_out"] for m in found] == sorted(
        (m["stands_out"] for m in found), reverse=True
    )
    for moment in found:
        assert moment["start_s"] <= moment["best_s"] < moment["end_s"]
        assert moment["scores"][moment["query"]]["score"] == moment["score"]
        assert list(moment["scores"]) == ["red circle", "blue star"]
        assert moment["path"] == str(collection.folder / f"videos/{moment['video']}.mp4")
    assert [m["query"] for m in found].count("red circle") == 4


def test_queries_are_shown_side_by_side(collection: Collection) -> None:
    words = ["red circle", "blue star", "--top", "1"]
    lines = call("search", collection.folder / "save_numpy", *words).stdout.splitlines()
    assert lines[0].startswith("Searched 400 frames of 8 videos.")
    assert lines[2].split() == ["from", "to", "best", "red", "circle", "blue", "star", "video"]
    assert [line.count("*") for line in lines[3:]] == [1, 1]


def test_new_videos_of_a_run_in_progress_are_found(collection: Collection, tmp_path: Path) -> None:
    before = tmp_path / "features"
    extract(collection.folder / "videos/drawn-00.mp4", before, "save_numpy")
    (before / "clip/demo/half_fps.npy").write_bytes(b"\x93NUM")  # of a video that is not done
    assert {m["video"] for m in search(before, "red circle", "--top", "99")} == {"drawn-00"}
    extract(collection.folder / "videos/drawn-01.mp4", before, "save_numpy")
    found = search(before, "red circle", "--top", "99")
    assert {m["video"] for m in found} == {"drawn-00", "drawn-01"}
    assert None not in [m["path"] for m in found]  # the inputs of both runs are known


def test_moved_and_missing_videos_are_said_and_the_answer_still_comes(
    collection: Collection, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    shapes.write_video(tmp_path / "here/only.mp4", [("red", "circle")], width=64, height=48, fps=5)
    extract(tmp_path / "here", tmp_path / "out", "save_numpy")
    (tmp_path / "here").rename(tmp_path / "there")
    ended = call("search", tmp_path / "out", "red circle", "--json")
    assert json.loads(ended.stdout)[0]["path"] is None
    assert "1 video cannot be found, such as only: name the folder" in ended.stderr
    (moment,) = search(tmp_path / "out", "red circle", "--top", "1", "--videos", tmp_path / "there")
    assert moment["path"] == str(tmp_path / "there/only.mp4")


def test_moments_are_cut(collection: Collection, tmp_path: Path) -> None:
    words = ["red circle", "--top", "2", "--cut", tmp_path / "clips", "--json"]
    ended = call("search", collection.folder / "save_numpy", *words)
    assert ended.status == 0, ended.stderr
    files = sorted((tmp_path / "clips").iterdir())
    for file, moment in zip(files, json.loads(ended.stdout), strict=True):
        assert moment["video"] in file.name
        with av.open(str(file)) as clip:
            first = next(clip.decode(video=0)).to_ndarray(format="rgb24")
        with av.open(moment["path"]) as video:
            frames = [f.to_ndarray(format="rgb24") for f in video.decode(video=0)]
        expected = frames[round(moment["start_s"] * 10)]
        assert np.abs(first.astype(float) - expected).mean() < 6


def test_a_moment_without_its_video_is_not_cut_and_said(
    collection: Collection, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/x.mp4").touch()
    words = [
        "red circle",
        "--top",
        "1",
        "--cut",
        tmp_path / "clips",
        "--videos",
        tmp_path / "other",
    ]
    ended = call("search", collection.folder / "save_numpy", *words)
    assert ended.status == 1
    assert "was not written: the video cannot be found" in ended.stderr


def test_an_index_is_made_and_used_and_said(collection: Collection, tmp_path: Path) -> None:
    pytest.importorskip("usearch", reason="usearch is not installed (rayclip[index])")
    shutil.copytree(collection.folder / "save_parquet", tmp_path / "out")
    words = ["red circle", "blue star", "--top", "2"]
    exact = search(tmp_path / "out", *words)
    ended = call("index", tmp_path / "out")
    assert ended.stdout.endswith("index: 400 frames, 400 of them new\n")
    ended = call("search", tmp_path / "out", *words, "--json")
    assert "Found with the index." in ended.stderr
    assert [without_scores(moment) for moment in json.loads(ended.stdout)] == [
        without_scores(moment) for moment in exact
    ]
    assert call("status", tmp_path / "out").status == 0  # the index is no damaged file of the run


def without_scores(moment: dict[str, Any]) -> dict[str, Any]:
    """What an index must not change by a bit."""
    return {key: value for key, value in moment.items() if key not in ("stands_out", "scores")}


REFUSED = [
    ([], "There is nothing to search for: give a text, or a picture with image."),
    (["a", "a"], "A text or picture is given twice: give each once."),
    (["a", "--top", "0"], "top must be at least 1, not 0."),
    (["a", "--model-name", "RN50"], "has no features of RN50; it has those of demo."),
    (["a", "--weights", "x.pt"], "weights are only for model_name custom, but this is demo."),
    (["--image", "gone.png"], "The picture gone.png cannot be read: No such file or directory."),
    (["a " * 200], "is too long"),
]


@pytest.mark.parametrize(("words", "sentence"), REFUSED)
def test_what_is_wrong_is_one_sentence(
    collection: Collection, words: list[str], sentence: str
) -> None:
    ended: Finished = call("search", collection.folder / "save_numpy", *words)
    assert ended.status == 2
    assert sentence in ended.stderr


def test_other_weights_than_the_runs_are_refused(collection: Collection, tmp_path: Path) -> None:
    folder = tmp_path / "clip/demo"
    folder.mkdir(parents=True)
    run = json.loads((collection.folder / "save_numpy/clip/demo/run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**run, "weights_sha256": "0" * 64}))
    ended = call("search", tmp_path, "red circle")
    assert ended.status == 2
    assert "were made with other weights of demo (SHA-256 000000000000…)" in ended.stderr
    assert "extract the features again." in ended.stderr  # demo takes no weights


def test_an_empty_folder_has_no_moment(collection: Collection, tmp_path: Path) -> None:
    folder = tmp_path / "clip/demo"
    folder.mkdir(parents=True)
    run = (collection.folder / "save_numpy/clip/demo/run.json").read_text()
    (folder / "run.json").write_text(run)
    assert (
        call("search", tmp_path, "red circle").stdout == "Nothing found in 0 frames of 0 videos.\n"
    )
