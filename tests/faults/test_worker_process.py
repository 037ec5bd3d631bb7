"""Without Ray: whatever happens to the worker process, the command goes on, and nothing is left."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
import shapes
from checkpoints import save_state_dict, small_vit
from hostility import hostile_environment
from run_cli import alive, call, family, finish, start_rayclip, wait_until

from rayclip.model.openai import DEFAULT_CUSTOM_WEIGHTS

COPIES = 20


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    shapes.write_video(path, [("red", "circle"), ("blue", "star")], seconds_per_scene=0.5)
    return path


def copies(clip: Path, folder: Path, names: Sequence[str]) -> list[Path]:
    return [shutil.copyfile(clip, folder / f"{name}.mp4") for name in names]


@pytest.fixture
def videos(clip: Path, tmp_path: Path) -> list[Path]:
    return copies(clip, tmp_path, [f"clip_{number:02}" for number in range(COPIES)])


def command(videos: Sequence[Path], output: Path) -> list[str | Path]:
    words: list[str | Path] = ["extract", *videos, "--model-name", "demo", "--address", "none"]
    return [*words, "--on-extraction", "save_numpy", "--output-path", output]


def features(output: Path, model: str = "demo") -> list[bytes]:
    return [path.read_bytes() for path in output.glob(f"clip/{model}/*_clip.npy")]


def worker_of(running: subprocess.Popen[str]) -> psutil.Process:
    """The worker process of a command, as soon as it has one."""
    wait_until(lambda: len(family(running)) == 2, "the worker process", running)
    return family(running)[1]


def test_videos_that_crash_hang_or_fill_the_memory_harm_no_others(
    clip: Path, tmp_path: Path
) -> None:
    names = [f"innocent_{number:02}" for number in range(COPIES - 3)]
    names[3:3], names[4:4], names[9:9] = ["crash"], ["hang"], ["memory"]
    output = tmp_path / "output"
    words = [*command(copies(clip, tmp_path, names), output), "--max-attempts", "1"]
    with start_rayclip(*words, env=hostile_environment(tmp_path, videos_per_task=4)) as running:
        first_worker = worker_of(running)
        ended = finish(running)
        assert not alive([first_worker, *family(running)])
    assert ended.status == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(features(output)) == COPIES - 3
    assert len({*features(output)}) == 1
    lines = (output / "clip" / "demo" / "failures.jsonl").read_text().splitlines()
    codes = {Path(failure["video"]).stem: failure["code"] for failure in map(json.loads, lines)}
    assert codes == {
        "crash": "worker_crashed",
        "hang": "worker_hung",
        "memory": "too_much_memory",
    }


def test_a_run_survives_the_kill_of_its_worker(
    videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / DEFAULT_CUSTOM_WEIGHTS
    weights.parent.mkdir(parents=True)
    save_state_dict(small_vit(), weights)
    output, models = tmp_path / "output", ("demo", "custom")
    with start_rayclip(*command(videos, output), "--model-name", "custom") as running:
        worker = worker_of(running)
        wait_until(lambda: features(output), "one video", running)
        worker.kill()
        assert len(features(output)) < COPIES, "the kill came too late to prove anything"
        ended = finish(running)
    assert ended.status == 0, ended.stderr
    assert f"{COPIES} done" in ended.stderr
    for model in models:
        assert len(features(output, model)) == COPIES
        assert len({*features(output, model)}) == 1


def test_a_worker_ends_with_its_command_however_that_dies(
    videos: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "output"
    with start_rayclip(*command(videos, output)) as running:
        worker = worker_of(running)
        wait_until(lambda: features(output), "one video", running)
        running.kill()
        wait_until(lambda: not alive([worker]), "the end of the worker")
    assert not [*output.rglob("*.tmp")]


def test_an_interrupted_run_leaves_whole_files_and_no_process(
    videos: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "output"
    with start_rayclip(*command(videos, output)) as running:
        worker = worker_of(running)
        wait_until(lambda: features(output), "one video", running)
        for process in (running, worker):  # as a terminal does
            process.send_signal(signal.SIGINT)
        ended = finish(running)
        assert not alive([worker])
    assert ended.status == 130
    assert ended.stderr.endswith("rayclip: interrupted\n")
    assert "Traceback" not in ended.stderr
    assert not [*output.rglob("*.tmp")]
    again = call(*command(videos, output))
    assert again.status == 0, again.stderr
    assert len({*features(output)}) == 1
    assert len(features(output)) == COPIES
