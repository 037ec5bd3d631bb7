"""Whole runs with several models: the features, files and lines of each as if it ran alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapes
from checkpoints import save_state_dict, small_vit
from run_cli import Finished, call

import rayclip
from rayclip.errors import UsageError
from rayclip.media.decoding import SelectedFrame
from rayclip.model.loaded_model import LoadedModel
from rayclip.model.models import describe
from rayclip.model.openai import DEFAULT_CUSTOM_WEIGHTS
from rayclip.run import plan_run
from rayclip.settings import Settings

CLIPS = 12
FRAMES = 10  # of each clip
BOTH = ("demo", "custom")  # 64 pixels to 64 features, and 40 to 48


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with clips, and with a checkpoint where video_features has it."""
    home = tmp_path_factory.mktemp("home")
    scenes = [("red", "circle"), ("blue", "star"), ("green", "square"), ("yellow", "cross")]
    for number in range(4):
        scene = [scenes[number]] * 2
        shapes.write_video(home / f"{number:02}.mp4", scene, fps=5, seconds_per_scene=1.0)
    for number in range(4, CLIPS):
        shutil.copyfile(home / f"{number % 4:02}.mp4", home / f"{number:02}.mp4")
    weights = home / DEFAULT_CUSTOM_WEIGHTS
    weights.parent.mkdir(parents=True)
    save_state_dict(small_vit(), weights)
    return home


@pytest.fixture(autouse=True)
def _in_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The frames that were converted to RGB."""
    frames: list[object] = []
    rgb: Any = SelectedFrame.rgb
    monkeypatch.setattr(SelectedFrame, "rgb", lambda self: (frames.append(0), rgb(self))[1])
    return frames


def extract(models: tuple[str, ...], output: Path, *words: str, clips: int = CLIPS) -> Finished:
    names = [word for model in models for word in ("--model-name", model)]
    videos = [f"{number:02}.mp4" for number in range(clips)]
    saving = ["--on-extraction", "save_numpy", "--output-path", str(output)]
    return call("extract", *videos, *names, "--address", "none", *saving, *words)


def content(output: Path, model: str) -> dict[str, bytes]:
    folder = output / "clip" / model
    return {path.name: path.read_bytes() for path in folder.glob("*.npy")}


@pytest.fixture(scope="module")
def alone(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """What each model makes of the clips in a run of its own."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for model in BOTH:
            output = tmp_path_factory.mktemp(model)
            assert extract((model,), output).status == 0
            made[model] = content(output, model)
            assert len(made[model]) == 3 * CLIPS
    return made


def test_two_models_decode_once_and_make_the_bits_of_two_runs(
    alone: dict[str, dict[str, bytes]], decoded: list[object], tmp_path: Path
) -> None:
    ended = extract(BOTH, tmp_path)
    assert ended.status == 0, ended.stderr
    assert "demo, custom on cpu" in ended.stderr
    assert f"videos: {CLIPS} done; {CLIPS * FRAMES} frames" in ended.stderr
    assert f"features: {tmp_path}/clip\n" in ended.stderr
    assert len(decoded) == CLIPS * FRAMES
    for model in BOTH:
        assert content(tmp_path, model) == alone[model]
        run = json.loads((tmp_path / "clip" / model / "run.json").read_text())
        assert run["model_name"] == model
        features = list(rayclip.load_features(tmp_path, model_name=model))
        assert len(features) == CLIPS
    assert call("status", tmp_path).stdout.count(f"{CLIPS} videos, ") == 2
    again = extract(BOTH, tmp_path)
    assert f"videos: 0 done, {CLIPS} done before" in again.stderr


def test_a_model_that_is_added_to_a_finished_run_makes_only_its_own(
    alone: dict[str, dict[str, bytes]], decoded: list[object], tmp_path: Path
) -> None:
    assert extract(BOTH[:1], tmp_path, clips=8).status == 0
    first = tmp_path / "clip" / BOTH[0]
    before = {path: path.stat().st_mtime_ns for path in first.glob("*.npy")}
    missing = tmp_path / "clip" / BOTH[0] / "03_clip.npy"
    missing.unlink()
    decoded.clear()
    with counted_frames() as frames:
        ended = extract(BOTH, tmp_path, clips=8)
    assert ended.status == 0, ended.stderr
    assert len(decoded) == 8 * FRAMES
    assert frames == {64: FRAMES, 40: 8 * FRAMES}
    after = {path: path.stat().st_mtime_ns for path in first.glob("*.npy")}
    assert {path.name for path in after if after[path] != before[path]} == {
        f"03_{kind}.npy" for kind in ("clip", "timestamps_ms", "fps")
    }
    for model in BOTH:
        assert content(tmp_path, model).items() <= alone[model].items()
        assert len(content(tmp_path, model)) == 3 * 8


@contextmanager
def counted_frames() -> Iterator[dict[int, int]]:
    """The number of frames that models encode meanwhile, by their resolution."""
    counts: dict[int, int] = {}
    encode: Any = LoadedModel.encode_image

    def counted(model: LoadedModel, images: Any) -> Any:
        counts[model.n_px] = counts.get(model.n_px, 0) + len(images)
        return encode(model, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LoadedModel, "encode_image", counted)
        yield counts


def test_features_of_one_model_that_are_not_finite_are_its_failure_alone(
    alone: dict[str, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode: Any = LoadedModel.encode_image

    def spoiled(model: LoadedModel, images: Any) -> Any:
        features = encode(model, images)
        red = np.stack(images).mean(axis=(1, 2))[:, 0]
        if model.n_px == 40:
            features[red > np.median(red) + 5] = np.nan
        return features

    with monkeypatch.context() as patch:
        patch.setattr(LoadedModel, "encode_image", spoiled)
        ended = extract(BOTH, tmp_path, clips=4)
    assert ended.status == 1
    assert len(content(tmp_path, "demo")) == 3 * 4
    lines = (tmp_path / "clip/custom/failures.jsonl").read_text().splitlines()
    failures = [json.loads(line) for line in lines]
    assert {failure["code"] for failure in failures} == {"not_finite"}
    assert {*failures[0]} == {"video", "stage", "code", "message", "attempts"}
    assert len(content(tmp_path, "custom")) == 3 * (4 - len(failures))
    assert f"{4 - len(failures)} done, {len(failures)} failed" in ended.stderr
    assert f"{failures[0]['video']} with custom: encode/not_finite" in ended.stderr
    assert not (tmp_path / "clip/demo/failures.jsonl").exists()
    again = extract(BOTH, tmp_path, clips=4)
    assert again.status == 0, again.stderr
    assert (tmp_path / "clip/custom/failures.jsonl").read_text() == ""
    for model in BOTH:
        assert content(tmp_path, model).items() <= alone[model].items()


def test_printed_keys_name_the_model(home: Path) -> None:
    names = ["--model-name", "[demo, custom]"]
    ended = call("extract", "00.mp4", *names, "--address", "none", "--on-extraction", "print")
    lines = ended.stdout.splitlines()
    keys = [f"{key}_{model}" for model in BOTH for key in ("clip", "fps", "timestamps_ms")]
    assert [line for line in lines if line in keys] == keys


def test_parquet_and_overwrite_work_for_each_model(tmp_path: Path) -> None:
    words = ["--on-extraction", "save_parquet"]
    for extra in ([], ["--overwrite"]):
        ended = extract(BOTH, tmp_path, *words, *extra, clips=3)
        assert ended.status == 0, ended.stderr
    for model, dim in zip(BOTH, (64, 48), strict=True):
        videos = list(rayclip.load_features(tmp_path, model_name=model))
        assert [video.clip.shape for video in videos] == [(FRAMES, dim)] * 3


def test_models_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    names = ("local-dir:a/model", "local-dir:b/model")
    settings = Settings(
        video_paths=("00.mp4",),
        model_name=names,
        on_extraction="save_numpy",
        output_path=str(tmp_path / "out"),
    )
    with pytest.raises(UsageError, match="would both be saved in"):
        plan_run(settings, lambda name, *_: replace(describe("demo"), model_name=name))
    assert not (tmp_path / "out").exists()
