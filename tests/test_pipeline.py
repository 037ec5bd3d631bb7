"""Whole runs on real Rays: a private one, and a user's cluster."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import checkpoints
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapes
from loopback_servers import serve
from run_cli import (
    ON_LOOPBACK,
    alive,
    call,
    family,
    finish,
    rayclip,
    start_rayclip,
    wait_until,
    workers,
)

pytestmark = pytest.mark.ray

DEMO = ("--model-name", "demo")
LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "shapes.mp4"
    shapes.write_video(path, [("red", "circle"), ("blue", "star")], seconds_per_scene=2.5)
    return path


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 10 frames, too few to fill a batch."""
    path = tmp_path_factory.mktemp("video") / "short.mp4"
    shapes.write_video(path, [("green", "cross")], seconds_per_scene=0.4)
    return path


def copies(clip: Path, folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{clip.stem}_{i:03}.mp4" for i in range(count)]
    for path in paths:
        shutil.copyfile(clip, path)
    return paths


def save_to(output: Path) -> list[str | Path]:
    return [*DEMO, "--on-extraction", "save_numpy", "--output-path", output]


def features(output: Path, video: Path) -> bytes:
    return (output / "clip" / "demo" / f"{video.stem}_clip.npy").read_bytes()


def outside_sockets(processes: list[psutil.Process]) -> list[str]:
    """Return the sockets that other machines could reach."""
    found = []
    for process in processes:
        try:
            connections = process.net_connections("inet")
        except psutil.Error:
            continue
        for connection in connections:
            waits = connection.status == psutil.CONN_LISTEN or connection.type == socket.SOCK_DGRAM
            if waits and connection.laddr and connection.laddr.ip not in LOOPBACK:
                found.append(f"{process.name()} {connection.laddr}")
    return found


def test_a_private_ray_is_private_has_the_bits_of_no_ray_and_fills_batches_across_videos(
    short: Path, tmp_path: Path
) -> None:
    home, output, alone = tmp_path / "home", tmp_path / "output", tmp_path / "alone"
    home.mkdir()
    (tmp_path / "videos").mkdir()
    videos = copies(short, tmp_path / "videos", 80)
    words = ["extract", *videos, *save_to(output), "--encoders", "2", "--verbose"]
    with start_rayclip(*words, env={"HOME": str(home), "RAY_ADDRESS": "local"}) as running:
        wait_until(lambda: list(output.glob("clip/demo/*_clip.npy")), "a first video", running)
        processes = family(running)
        assert workers(running, "ray::Encoder")
        assert outside_sockets(processes) == []
        ended = finish(running)
    assert ended.status == 0, ended.stderr
    assert not (home / ".ray").exists()
    wait_until(lambda: not alive(processes), "the end of every process of the run")

    figures = [
        line.split(", ") for line in ended.stderr.splitlines() if line.startswith("encoder ")
    ]
    assert len(figures) == 2, ended.stderr
    for _, fill, _, _ in figures:
        assert float(fill.removeprefix("mean batch fill ")) > 0.8
    # of the two together: one that comes up late may be left a single video
    assert sum(int(shared.split()[0]) for _, _, shared, _ in figures) > 0

    assert call("extract", short, *save_to(alone), "--address", "none").status == 0
    assert {features(output, video) for video in videos} == {features(alone, short)}


def test_print_keeps_the_input_order_with_weights_that_only_the_driver_has(
    clip: Path, cluster: str, tmp_path: Path
) -> None:
    checkpoint = checkpoints.save_state_dict(checkpoints.small_vit(), tmp_path / "mine.pt")
    videos = copies(clip, tmp_path, 5)
    words = ["--model-name", "custom", "--weights", checkpoint, "--extraction-fps", "1"]
    words += ["--device", "cpu", "--address", cluster]
    environment = {**ON_LOOPBACK, "HOME": str(tmp_path)}
    ended = rayclip("extract", *reversed(videos), *words, env=environment)
    assert ended.status == 0, ended.stderr
    printed = [line for line in ended.stdout.splitlines() if line.endswith(".mp4")]
    assert printed == [str(video) for video in reversed(videos)]
    assert ended.stdout.splitlines().count("timestamps_ms") == 5


def test_a_table_in_one_block_is_decoded_by_several_tasks_of_a_cluster_that_stays_up(
    short: Path, cluster: str, tmp_path: Path
) -> None:
    (tmp_path / "videos").mkdir()
    videos = copies(short, tmp_path / "videos", 40)
    table = pa.table({"path": list(map(str, videos)), "label": ["cross"] * 40})
    pq.write_table(table, tmp_path / "videos.parquet", row_group_size=40)
    output = tmp_path / "output"
    words = ["extract", "--file-with-video-paths", tmp_path / "videos.parquet", "--device", "cpu"]
    words += [*DEMO, "--on-extraction", "save_parquet", "--output-path", output]
    ended = rayclip(*words, "--address", cluster, env=ON_LOOPBACK)
    assert ended.status == 0, ended.stderr
    assert "videos: 40 done" in ended.stderr
    assert len([*output.glob("clip/demo/*.parquet")]) > 1, "each task writes a shard of its own"
    with socket.create_connection(("127.0.0.1", int(cluster.rpartition(":")[2])), timeout=5):
        pass


IN_TURN = """
import json, sys
from run_cli import call

ended = [call(*words) for words in json.loads(sys.argv[1])]
print(json.dumps([[one.status, one.stderr] for one in ended]))
"""


def test_a_cluster_without_gpus_is_refused_with_two_alternatives_and_a_gpu_of_one_machine(
    clip: Path, cluster: str
) -> None:
    words = ["extract", str(clip), *DEMO]
    commands = json.dumps([words, [*words, "--device", "cuda:3"]])
    paths = os.pathsep.join(filter(None, sys.path))
    ended = subprocess.run(
        [sys.executable, "-c", IN_TURN, commands],
        env={**os.environ, **ON_LOOPBACK, "PYTHONPATH": paths, "RAY_ADDRESS": cluster},
        capture_output=True,
        text=True,
    )
    (refused, why), (other, why_not) = json.loads(ended.stdout)
    assert (refused, other) == (2, 2), ended.stdout
    assert "--device cpu" in why
    assert "--encoders N" in why
    assert "device cuda:3" in why_not


def test_official_weights_are_downloaded_once_for_all_encoders_and_later_runs(
    clip: Path, tmp_path: Path
) -> None:
    """A random model plays an official one: only its checksum and size are put in for the test."""
    checkpoint = checkpoints.save_torchscript(checkpoints.small_vit(), tmp_path / "RN50.pt")
    sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    requests: list[str] = []

    class Mirror(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(checkpoint.stat().st_size))
            self.end_headers()
            self.wfile.write(checkpoint.read_bytes())

        def log_message(self, *_: object) -> None:
            pass

    code = """
import sys, rayclip, rayclip.model.openai as models
n_px, dim = models.clip_shape(sys.argv[2])[:2]
models.OFFICIAL_MODELS["RN50"] = models.PublishedModel(n_px, dim, sys.argv[3])
for how in ({"address": "local", "encoders": 2}, {"address": "none"}):
    summary = rayclip.extract(sys.argv[1], model_name="RN50", extraction_fps=2, **how,
                              on_extraction="save_numpy", output_path=sys.argv[4] + how["address"])
    print(summary.done, summary.frames, summary.failed)
"""
    home = tmp_path / "home"
    home.mkdir()
    with serve(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)) as server:
        mirror = f"http://127.0.0.1:{server.server_port}/clip"
        ended = subprocess.run(
            [sys.executable, "-c", code, clip, checkpoint, sha256, tmp_path / "output"],
            env={**os.environ, "HOME": str(home), "RAYCLIP_WEIGHTS_MIRROR": mirror},
            capture_output=True,
            text=True,
        )
    assert ended.stdout == "1 10 ()\n" * 2, ended.stderr
    assert requests == [f"/clip/{sha256}/RN50.pt"]
    assert (home / ".cache/clip/RN50.pt").read_bytes() == checkpoint.read_bytes()


def test_weights_that_cannot_be_found_end_the_run_with_one_sentence(
    clip: Path, tmp_path: Path
) -> None:
    nowhere = {"RAYCLIP_WEIGHTS_MIRROR": str(tmp_path / "nothing"), "HOME": str(tmp_path)}
    ended = rayclip("extract", clip, "--model-name", "RN50", "--address", "local", env=nowhere)
    assert ended.status == 3, ended.stderr
    assert "Traceback" not in ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("rayclip: No encoder can start")
    assert "RAYCLIP_WEIGHTS_MIRROR" in last
