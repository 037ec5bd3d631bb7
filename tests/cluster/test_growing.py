"""A cluster that changes during a run: nodes that join and leave, an autoscaler, other runs.

The nodes are raylets of this machine, on loopback. Their GPUs are fake: encoders sleep for every
frame, and the frames are synthetic.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from checkpoints import save_state_dict, small_resnet
from ray_clusters import Nodes, free_port, ray_head, ray_nodes
from run_cli import ON_LOOPBACK, finish, start_rayclip, wait_until

pytestmark = pytest.mark.ray

VIDEOS = 120
MANY, FEWER = 400, 2  # a run of MANY lasts until others, of FEWER, have begun or ended
FOLDER = Path(__file__).parents[2] / "scripts" / "benchmarks" / "stand_ins"
STAND_INS = {
    "PYTHONPATH": os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")]),
    "RAYCLIP_BENCH_PRETENDED_GPUS": "1",
    "RAYCLIP_BENCH_SYNTHETIC_FRAMES": "64",
    "RAYCLIP_BENCH_FAKE_MICROSECONDS": "1500",
}
SOON_SILENT = """
from rayclip.report import progress
from rayclip.__main__ import main
progress.PLAIN_PERIOD_S = progress.SILENCE_S = 3.0
main()
"""
"""``rayclip``, which says after 3 instead of 30 seconds what it waits for."""

AUTOSCALER: dict[str, Any] = {
    "cluster_name": "test",
    "max_workers": 2,
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 2}, "node_config": {}, "max_workers": 0},
        "gpu": {"resources": {"CPU": 1, "GPU": 1}, "node_config": {}, "max_workers": 2},
    },
    "head_node_type": "ray.head.default",
    "idle_timeout_minutes": 10,
    "upscaling_speed": 1.0,
    "auth": {},
    "file_mounts": {},
    "cluster_synced_files": [],
    "file_mounts_sync_continuously": False,
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
}


def extract(address: str, videos: int, output: Path, model_name: str = "demo") -> list[str | Path]:
    words = ["extract", *(f"/nowhere/{output.name}-{number:03}.mp4" for number in range(videos))]
    words += ["--address", address, "--model-name", model_name]
    return [*words, "--on-extraction", "save_numpy", "--output-path", output]


def finished(output: Path) -> int:
    return len(list(output.glob("clip/*/*_clip.npy")))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with ray_nodes(STAND_INS) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def gpu_node(nodes: Nodes) -> psutil.Process:
    """The only node with a GPU."""
    return nodes.add(cpus=3, gpus=1)


def test_two_runs_on_the_cpus_of_one_node_both_finish(nodes: Nodes, tmp_path: Path) -> None:
    """The head has two: an encoder each, with a task each, would be more than there is.

    Few videos: on the CPU that they share, Ray starts a process for each video.
    """
    environment = {**STAND_INS, **nodes.environment}
    words = ["--device", "cpu"]
    with (
        start_rayclip(
            *extract(nodes.address, FEWER, tmp_path / "one"), *words, env=environment
        ) as first,
        start_rayclip(
            *extract(nodes.address, FEWER, tmp_path / "other"), *words, env=environment
        ) as second,
    ):
        ends = [finish(first), finish(second)]
    assert [ended.status for ended in ends] == [0, 0], [ended.stderr for ended in ends]
    assert finished(tmp_path / "one") == finished(tmp_path / "other") == FEWER


@pytest.mark.usefixtures("gpu_node")
def test_runs_share_a_gpu_on_request_and_others_wait_for_it_and_say_so(
    nodes: Nodes, tmp_path: Path
) -> None:
    one, other, waiting = tmp_path / "one", tmp_path / "other", tmp_path / "waiting"
    weights = save_state_dict(small_resnet(), tmp_path / "other.pt")
    environment = {**STAND_INS, **nodes.environment}
    slow = {**environment, "RAYCLIP_BENCH_FAKE_MICROSECONDS": "5000"}
    half = ["--encoders-per-gpu", "2", "--encoders", "1"]
    small = [*extract(nodes.address, FEWER, other, "custom"), "--weights", weights, *half]
    with (
        start_rayclip(*extract(nodes.address, MANY, one), *half, env=slow) as first,
        start_rayclip(*small, env=environment) as second,
    ):
        ended = finish(second)
        assert ended.status == 0, ended.stderr
        wait_until(lambda: finished(one), "a video of the first run", first)
        words = extract(nodes.address, FEWER, waiting)
        with start_rayclip(*words, env=environment, program=("-c", SOON_SILENT)) as third:
            assert third.stderr is not None
            said = next(line for line in third.stderr if "--encoders-per-gpu" in line)
            assert "of the cluster's 1 are free" in said
            assert not finished(waiting)
            assert first.poll() is None, "the first run ended too early to prove anything"
            first.terminate()
            ends = [finish(first), finish(third)]
    assert [ended.status for ended in ends] == [143, 0], [ended.stderr for ended in ends]
    assert finished(other) == finished(waiting) == FEWER


def test_a_node_that_joins_gets_an_encoder_and_a_lost_node_loses_no_videos(
    nodes: Nodes, gpu_node: psutil.Process, tmp_path: Path
) -> None:
    """The last test with ``gpu_node``, which it kills."""
    words = extract(nodes.address, VIDEOS, tmp_path)
    with start_rayclip(*words, env={**STAND_INS, **nodes.environment}) as run:
        wait_until(lambda: finished(tmp_path) >= 3, "three videos", run)
        assert len(nodes.encoders()) == 1
        nodes.add(cpus=2, gpus=1)
        wait_until(lambda: len(nodes.encoders()) == 2, "an encoder on the node that joined", run)
        for process in [*gpu_node.children(recursive=True), gpu_node]:
            process.kill()
        assert finished(tmp_path) < VIDEOS, "the node went too late to prove anything"
        ended = finish(run)
    assert ended.status == 0, ended.stderr
    assert finished(tmp_path) == VIDEOS
    assert "Traceback" not in ended.stderr


def test_requested_encoders_wait_for_gpus_from_an_autoscaler(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("head")
    config = folder / "cluster.json"
    port = free_port()
    provider = {"type": "fake_multinode", "gcs_address": f"127.0.0.1:{port}"}
    config.write_text(json.dumps({**AUTOSCALER, "provider": provider}))
    slow = {**STAND_INS, "RAYCLIP_BENCH_FAKE_MICROSECONDS": "5000"}
    environment = {**slow, "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    options = f"--num-cpus=2 --include-dashboard=false --autoscaling-config={config}"
    with (
        ray_head(folder, environment, options, port) as address,
        start_rayclip(
            *extract(address, VIDEOS, tmp_path), "--encoders", "2", env={**slow, **ON_LOOPBACK}
        ) as run,
    ):
        wait_until(lambda: finished(tmp_path), "a video, encoded on a node that was added", run)
        run.terminate()
        ended = finish(run)
    assert ended.status == 143, ended.stderr
    assert "2 encoders were requested, but this Ray has 0 GPUs" in ended.stderr
