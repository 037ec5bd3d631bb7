"""Real processes are killed in the middle of a run, and nothing is lost."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import shapes
from checkpoints import save_state_dict, small_vit
from hostility import hostile_environment
from ray_clusters import kill_workers
from run_cli import (
    ON_LOOPBACK,
    alive,
    call,
    family,
    finish,
    start_rayclip,
    title,
    wait_until,
    workers,
)

from rayclip.model.openai import DEFAULT_CUSTOM_WEIGHTS

pytestmark = pytest.mark.ray

COPIES = 8
ENCODER = "ray::Encoder"
DECODER = "ray::MapBatches"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Copies of one clip, each long enough to be caught at work."""
    folder = tmp_path_factory.mktemp("clips")
    first = folder / "clip_00.mp4"
    shapes.write_video(first, [("red", "circle"), ("blue", "star")], seconds_per_scene=2.0)
    copies = [folder / f"clip_{i:02}.mp4" for i in range(1, COPIES)]
    for copy in copies:
        shutil.copyfile(first, copy)
    return [first, *copies]


@pytest.fixture(scope="module")
def undisturbed(clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The features of that clip from a run without Ray in which nothing happens."""
    output = tmp_path_factory.mktemp("undisturbed")
    assert call(*command(clips[:1], output), "--address", "none").status == 0
    return features(clips[0], output).read_bytes()


def command(clips: Sequence[Path], output: Path) -> list[str | Path]:
    words: list[str | Path] = ["extract", *clips, "--address", "local", "--model-name", "demo"]
    return [*words, "--on-extraction", "save_numpy", "--output-path", output]


def features(clip: Path, output: Path) -> Path:
    return output / "clip" / "demo" / f"{clip.stem}_clip.npy"


def finished(output: Path) -> int:
    return len(list(output.glob("clip/demo/*_clip.npy")))


def kill_one(running: subprocess.Popen[str], name: str) -> None:
    found: list[psutil.Process] = []

    def is_there() -> bool:  # a worker that ends its task is called otherwise a moment later
        found[:] = workers(running, name)
        return bool(found)

    wait_until(is_there, f"a process {name}", running)
    found[0].send_signal(signal.SIGKILL)


def test_killed_encoders_and_decoding_workers_cost_no_video_and_change_no_bit(
    clips: list[Path],
    undisturbed: bytes,
    cluster: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of two models. On a cluster, a new encoder also needs the checkpoints that were sent to the
    first."""
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / DEFAULT_CUSTOM_WEIGHTS
    weights.parent.mkdir(parents=True)
    save_state_dict(small_vit(), weights)
    words = [*command(clips, tmp_path), "--device", "cpu", "--address", cluster]
    words += ["--model-name", "custom"]
    with start_rayclip(*words, env=ON_LOOPBACK) as running:
        wait_until(lambda: finished(tmp_path) >= 2, "two videos", running)
        kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("clip/demo/*_clip.npy")}
        for name in (ENCODER, DECODER):
            kill_workers(cluster, name, running)
        assert finished(tmp_path) < COPIES, "the kill came too late to prove anything"
        ended = finish(running)
    assert ended.status == 0, ended.stderr
    for clip in clips:
        assert features(clip, tmp_path).read_bytes() == undisturbed
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    others = [path.read_bytes() for path in tmp_path.glob("clip/custom/*_clip.npy")]
    assert len(others) == COPIES
    assert len({*others}) == 1
    assert "Traceback" not in ended.stderr


def test_a_group_whose_worker_was_killed_keeps_its_shards_and_has_no_row_twice(
    clips: list[Path], tmp_path: Path
) -> None:
    videos = [shutil.copyfile(clips[0], tmp_path / f"video_{i:02}.mp4") for i in range(16)]
    output = tmp_path / "output"
    words = command(videos, output)
    words[words.index("save_numpy")] = "save_parquet"

    def shards() -> dict[Path, int]:
        found = output.glob("clip/demo/*.parquet")
        return {path: path.stat().st_mtime_ns for path in found}

    groups_of_four = hostile_environment(tmp_path, videos_per_task=4)
    with start_rayclip(*words, env=groups_of_four) as running:
        wait_until(lambda: len(shards()) >= 1, "a shard", running)
        kill_one(running, DECODER)
        kept = shards()
        ended = finish(running)
    assert ended.status == 0, ended.stderr
    assert len(kept) < len(videos) / 4, "the kill came too late to prove anything"
    assert f"{len(videos)} done" in ended.stderr
    assert kept.items() <= shards().items()
    rows = [row for path in shards() for row in pq.read_table(path).to_pylist()]
    assert sorted(row["video"] for row in rows) == sorted(map(str, videos))
    assert len({str(row["clip"]) for row in rows}) == 1, "copies of one clip have other features"


def temporary_folders(processes: list[psutil.Process]) -> set[Path]:
    """Those of the private Ray that some of these processes are. Their programs may lie in a folder
    that is called so, too."""
    words = " ".join(title(process) for process in processes)
    return {Path(folder) for folder in re.findall(r"temp[-_]dir=(/tmp/rayclip-[^/ ]+)", words)}


def test_an_interrupted_run_ends_in_order_and_can_be_continued(
    clips: list[Path], undisturbed: bytes, tmp_path: Path
) -> None:
    with start_rayclip(*command(clips, tmp_path)) as running:
        wait_until(lambda: finished(tmp_path) >= 2, "two videos", running)
        processes = family(running)
        folders = temporary_folders(processes)
        assert folders
        running.send_signal(signal.SIGINT)
        ended = finish(running)
    assert ended.status == 130, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "videos: " in ended.stderr
    wait_until(lambda: not alive(processes), "the end of every process of the run")
    assert not [folder for folder in folders if folder.exists()]
    names = {path.name for path in tmp_path.glob("clip/demo/*")}
    assert not [name for name in names if name.endswith(".tmp")]
    done = [clip for clip in clips if features(clip, tmp_path).exists()]
    assert 2 <= len(done) < COPIES
    for clip in done:
        assert features(clip, tmp_path).read_bytes() == undisturbed
    again = call(*command(clips, tmp_path), "--address", "none")  # which starts sooner
    assert again.status == 0, again.stderr
    assert f"{len(done)} done before" in again.stderr
    assert np.load(features(clips[-1], tmp_path)).shape == (100, 64)


def test_a_killed_driver_leaves_no_process_and_no_temporary_folder(
    clips: list[Path], tmp_path: Path
) -> None:
    with start_rayclip(*command(clips, tmp_path)) as running:
        wait_until(lambda: finished(tmp_path) >= 1, "one video", running)
        processes = family(running)
        folders = temporary_folders(processes)
        assert folders
        running.kill()
        wait_until(lambda: not alive(processes), "the end of every process of the run")
    assert not [folder for folder in folders if folder.exists()]
    assert call(*command(clips, tmp_path), "--address", "none").status == 0
    assert finished(tmp_path) == COPIES


def test_a_private_ray_whose_control_store_dies_ends_the_run_with_a_sentence(
    clips: list[Path], tmp_path: Path
) -> None:
    """Ray itself would end it, a minute later, with the status of a run in which videos failed."""
    bad = tmp_path / "bad.mp4"
    bad.write_text("this is no video")
    output = tmp_path / "out"
    videos = [shutil.copyfile(clips[0], tmp_path / f"video_{i:02}.mp4") for i in range(5 * COPIES)]
    with start_rayclip(*command([bad, *videos], output)) as running:
        # the result of the bad one, from the first of eight tasks, is with the command by then
        wait_until(lambda: finished(output) >= 3 * COPIES, "more than half of the videos", running)
        processes = family(running)
        folders = temporary_folders(processes)
        (store,) = [p for p in processes if "gcs/gcs_server" in title(p).split(" ")[0]]
        store.kill()
        assert finished(output) < len(videos), "the kill came too late to prove anything"
        ended = finish(running)
    assert ended.status == 3, ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("rayclip: Ray's control store ")
    assert "Traceback" not in ended.stderr
    wait_until(lambda: not alive(processes), "the end of every process of the run")
    wait_until(lambda: not any(folder.exists() for folder in folders), "the end of its files")
    assert "not_a_video" in (output / "clip" / "demo" / "failures.jsonl").read_text()
