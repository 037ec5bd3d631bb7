"""Searching saved features in Python: the examples of docs/search.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapes
from pages import EXAMPLES
from run_cli import call

SCENES = {
    "first": [("red", "circle"), ("blue", "square"), ("yellow", "star")],
    "middle": [("red", "square"), ("red", "circle"), ("green", "circle")],
}
FPS = 25
PYTHON = [e for e in EXAMPLES if e.page == "docs/search.md" and e.language == "python"]
SEARCH, FRAMES = (example.text for example in PYTHON)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two generated videos and their features."""
    folder = tmp_path_factory.mktemp("searched")
    for name, scenes in SCENES.items():
        shapes.write_video(folder / f"{name}.mp4", scenes, fps=FPS, seconds_per_scene=1)
    words = ["--model-name", "demo", "--extraction-fps", "5", "--on-extraction", "save_numpy"]
    paths = [folder / f"{name}.mp4" for name in SCENES]
    ended = call(
        "extract", *paths, *words, "--output-path", folder / "features", "--address", "none"
    )
    assert ended.status == 0, ended.stderr
    return folder


@pytest.fixture(autouse=True)
def _in_folder(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(videos)


def drawn(video: str, seconds: float) -> str:
    return shapes.label(*SCENES[video][int(seconds)])


def test_the_search_of_the_page_finds_the_red_circle_when_it_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert len(SEARCH.splitlines()) == 10
    exec(SEARCH, {})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    found = sorted((video, float(seconds)) for _, video, seconds, _ in lines)
    first, middle = np.arange(5) * 0.2, 1 + np.arange(5) * 0.2
    assert [video for video, _ in found] == ["first"] * 5 + ["middle"] * 5
    assert np.allclose([seconds for _, seconds in found], [*first, *middle])
    assert {drawn(video, seconds) for video, seconds in found} == {"red circle"}


def test_the_table_of_the_page_has_a_row_for_each_frame() -> None:
    exec(FRAMES, {})
    rows = pq.read_table("frames.parquet").to_pylist()
    assert [row["video"] for row in rows] == ["first"] * 15 + ["middle"] * 15
    assert [row["timestamp_ms"] for row in rows[:15]] == [200.0 * tick for tick in range(15)]
    features = np.load("features/clip/demo/middle_clip.npy")
    assert np.array_equal(np.array([row["clip"] for row in rows[15:]], np.float32), features)
