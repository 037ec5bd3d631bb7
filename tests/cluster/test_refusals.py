"""What is wrong with a cluster is found before anything starts. There are two hosts with a token;
in some tests, the second has another rayclip or none."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import shapes
from hosts import Host, hosts, unsupported_reason
from ray_clusters import FEWER_PROCESSES

pytestmark = pytest.mark.ray

WITH_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
OTHER_RAYCLIP = """
import importlib.util, pathlib, sys

FAKE = pathlib.Path(__file__).with_name("fake.py")

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "rayclip" and FAKE.exists():
            return importlib.util.spec_from_file_location(name, FAKE)

sys.meta_path.insert(0, Finder)
"""
START = {
    "first": f"ray start --head --port=6379 --num-cpus=2 --num-gpus=0 {FEWER_PROCESSES}",
    "second": (
        "ray start --address={head}:6379 --num-cpus=2 --num-gpus=0 --include-log-monitor=false"
    ),
}


class TwoHosts(NamedTuple):
    """A cluster of two hosts, and a host outside it.

    Attributes:
        first: with the head.
        outside: without Ray.
        shared: a folder that all see; the rest of /tmp is private to each.
        environment: of commands.
    """

    first: Host
    outside: Host
    shared: Path
    environment: dict[str, str]

    @property
    def fake(self) -> Path:
        """A file that replaces rayclip on the second host, if it exists."""
        return self.shared / "fake.py"


@pytest.fixture(scope="module")
def two_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoHosts]:
    if reason := unsupported_reason():
        pytest.skip(reason)
    shared = tmp_path_factory.mktemp("shared")
    (shared / "sitecustomize.py").write_text(OTHER_RAYCLIP)
    shapes.write_video(shared / "clip.mp4", [("red", "circle")], seconds_per_scene=0.5)
    environment = {**os.environ, "HOME": str(shared), "RAY_USAGE_STATS_ENABLED": "0"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with hosts(shared, "first", "second", "outside") as machines:
        for host in machines[:2]:
            path = os.environ.get("PYTHONPATH", "")
            if host.name == "second":
                path = f"{shared}:{path}"
            subprocess.run(
                host.inside("sh", "-c", START[host.name].format(head=machines[0].address)),
                env={**environment, **WITH_TOKEN, "PYTHONPATH": path},
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        yield TwoHosts(machines[0], machines[2], shared, environment)


def refused(
    cluster: TwoHosts,
    video: Path,
    output: Path,
    variables: dict[str, str],
    address: str = "auto",
    outside: bool = False,
) -> str:
    """Run a command that must fail soon, with nothing started, and return its sentence."""
    host = cluster.outside if outside else cluster.first
    words = ["extract", video, "--model-name", "demo", "--device", "cpu", "--address", address]
    words += ["--on-extraction", "save_numpy", "--output-path", output]
    begun = time.monotonic()
    ended = subprocess.run(
        host.inside(sys.executable, "-m", "rayclip", *words),
        env={**cluster.environment, **variables},
        capture_output=True,
        text=True,
    )
    assert time.monotonic() - begun < 30
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(output.rglob("*.*"))
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("rayclip: ")
    return last.removeprefix("rayclip: ")


@pytest.fixture(scope="module")
def refusals(two_hosts: TwoHosts) -> dict[str, str]:
    """Return the sentences for commands that request what is not there. Four run at a time, because
    they mostly wait."""
    shared, local = two_hosts.shared, Path("/tmp/local.mp4")
    subprocess.run(two_hosts.first.inside("cp", shared / "clip.mp4", local), check=True)
    there = {"video": shared / "clip.mp4", "output": shared / "output", "variables": WITH_TOKEN}
    head = f"{two_hosts.first.address}:6379"
    asked: dict[str, dict[str, Any]] = {
        "a web server": {"address": f"{two_hosts.first.address}:8000"},  # takes longest
        "nothing": {"variables": {}},
        "another token": {"variables": {**WITH_TOKEN, "RAY_AUTH_TOKEN": "f" * 64}},
        "output of the driver": {"output": Path("/tmp/features")},
        "video of the driver": {"video": local},
        "no Ray": {"outside": True},
        "no node": {"outside": True, "address": head},
    }
    server = subprocess.Popen(
        two_hosts.first.inside(sys.executable, "-m", "http.server", "8000"),
        cwd=shared,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with ThreadPoolExecutor(max_workers=4) as four_at_a_time:
            said = {
                name: four_at_a_time.submit(refused, two_hosts, **{**there, **words})
                for name, words in asked.items()
            }
            return {name: sentence.result() for name, sentence in said.items()}
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("name", ["nothing", "another token"])
def test_a_missing_or_wrong_token_is_reported_with_its_place(
    refusals: dict[str, str], name: str
) -> None:
    assert "requires a token" in refusals[name]
    assert "RAY_AUTH_MODE=token" in refusals[name]


def test_an_output_folder_that_only_the_driver_sees_is_refused(refusals: dict[str, str]) -> None:
    said = refusals["output of the driver"]
    assert said.startswith("On node second (")
    assert "nothing can be written to /tmp/features/clip/demo (there is no such file" in said


def test_a_video_that_only_the_driver_sees_is_refused(refusals: dict[str, str]) -> None:
    said = refusals["video of the driver"]
    assert said.startswith("On node second (")
    assert "the input /tmp/local.mp4 cannot be opened (there is no such file or folder)" in said


def test_a_host_without_ray_is_reported(refusals: dict[str, str]) -> None:
    assert "no Ray cluster runs on this machine" in refusals["no Ray"]


def test_a_host_outside_the_cluster_is_refused(
    refusals: dict[str, str], two_hosts: TwoHosts
) -> None:
    head = f"{two_hosts.first.address}:6379"
    start = f"This machine is not a node of the Ray cluster at {head}: "
    assert refusals["no node"].startswith(start)


def test_a_web_server_is_not_taken_for_a_cluster(refusals: dict[str, str]) -> None:
    assert "does not answer like a Ray cluster" in refusals["a web server"]


@pytest.mark.parametrize(
    ("there", "sentence"),
    [
        (
            "raise ModuleNotFoundError(\"No module named 'rayclip'\")",
            "rayclip cannot be imported (No module named 'rayclip')",
        ),
        ("__version__ = '0.0.9'", "there is rayclip 0.0.9, "),
    ],
    ids=["no rayclip", "another rayclip"],
)
def test_a_node_without_the_same_rayclip_is_named(
    two_hosts: TwoHosts, there: str, sentence: str
) -> None:
    shared = two_hosts.shared
    two_hosts.fake.write_text(there)
    try:
        said = refused(two_hosts, shared / "clip.mp4", shared / "output", WITH_TOKEN)
    finally:
        two_hosts.fake.unlink()
    assert said.startswith("On node second (")
    assert sentence in said
