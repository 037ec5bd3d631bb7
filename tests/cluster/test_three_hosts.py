"""A cluster of hosts that share only a network: videos and features are on an S3 server.

The hosts claim to have GPUs: their encoders sleep for every frame.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest
import shapes
from hosts import Host, cut_off, hosts, unsupported_reason
from ray_clusters import FEWER_PROCESSES
from run_cli import wait_until

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")
pytestmark = [pytest.mark.ray, pytest.mark.alone]

VIDEOS = 24
FRAMES = {"long": 150, "short": 40}  # of each video of a list
NAMES = ("head", "one", "two", "late")
GPUS = {"head": 0, "one": 1, "two": 2, "late": 1}
CPUS = {"head": 1, "one": 2, "two": 1, "late": 1}
ENCODER = re.compile(r"^encoder \d+ on (\w+) \(.*?\): (\d+) frames", re.MULTILINE)
REQUEST = re.compile(r'"(?:\x1b\[\d+m)*(GET|PUT) /bucket/(\S+?)(?:\?\S*)? HTTP')
STAND_INS = Path(__file__).parents[2] / "scripts" / "benchmarks" / "stand_ins"
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(STAND_INS), os.environ.get("PYTHONPATH", "")]),
    "RAYCLIP_BENCH_FAKE_MICROSECONDS": "35000",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_period_ms": "1000",  # a host that is gone is missed sooner
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
    "RAY_core_worker_rpc_server_reconnect_timeout_max_s": "5",
    "RAY_raylet_rpc_server_reconnect_timeout_max_s": "5",
    "AWS_ACCESS_KEY_ID": "a key",
    "AWS_SECRET_ACCESS_KEY": "a secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@dataclass(frozen=True)
class Site:
    """Hosts and an S3 server that all of them reach.

    Attributes:
        hosts: by name.
        environment: of commands on them.
        s3: the server's bucket, from outside.
        requests: the server's log.
    """

    hosts: dict[str, Host]
    environment: dict[str, str]
    s3: Any
    requests: Path

    def start(self, name: str) -> None:
        """Let a host join the cluster."""
        words = f"--num-cpus={CPUS[name]} --num-gpus={GPUS[name]} --include-log-monitor=false"
        where = f"--address={self.head.address}:6379"
        if name == "head":
            where = f"--head --port=6379 {FEWER_PROCESSES}"
        subprocess.run(
            self.hosts[name].inside("ray", "start", *where.split(), *words.split()),
            env=self.environment,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @property
    def head(self) -> Host:
        return self.hosts["head"]

    def extract(self, videos: str, output: str) -> subprocess.Popen[str]:
        """Give the command on the head, for one of the lists."""
        words = ["extract", "--file-with-video-paths", f"s3://bucket/{videos}.txt", "--verbose"]
        words += ["--address", "auto", "--model-name", "demo", "--batch-size", "16"]
        words += ["--on-extraction", "save_numpy", "--output-path", f"s3://bucket/{output}"]
        return subprocess.Popen(
            self.head.inside(sys.executable, "-m", "rayclip", *words),
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finished(self, output: str) -> int:
        return sum(name.endswith("_clip.npy") for name in self.s3.find(f"bucket/{output}"))

    def requested(self, method: str, prefix: str) -> Counter[str]:
        """How often each object whose name begins so was asked for, or put."""
        found = REQUEST.findall(self.requests.read_text())
        return Counter(name for how, name in found if how == method and name.startswith(prefix))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if reason := unsupported_reason():
        pytest.skip(reason)
    shared = tmp_path_factory.mktemp("shared")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with hosts(shared, *NAMES) as machines, ExitStack() as stack:
        url = f"http://{machines[0].address}:5000"
        environment = {**os.environ, **ENVIRONMENT, "HOME": str(shared), "PATH": path}
        log = (shared / "requests").open("w")
        server = subprocess.Popen(
            machines[0].inside(
                *[sys.executable, "-m", "moto.server", "-H", machines[0].address, "-p", "5000"]
            ),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        stack.callback(server.wait)
        stack.callback(server.kill)
        wait_until(lambda: "Running on" in (shared / "requests").read_text(), "an S3 server")
        storage = fsspec.filesystem(
            "s3",
            key="a key",
            secret="a secret",
            endpoint_url=url,
            skip_instance_cache=True,
            use_listings_cache=False,
        )
        fill(storage, shared)
        by_name = {host.name: host for host in machines}
        there = Site(
            by_name, {**environment, "AWS_ENDPOINT_URL": url}, storage, shared / "requests"
        )
        there.start("head")
        with ThreadPoolExecutor() as both:
            list(both.map(there.start, ("one", "two")))
        yield there


def fill(storage: Any, folder: Path) -> None:
    """Put the videos, and the lists of them, on the server."""
    storage.mkdir("bucket")
    for videos, frames in FRAMES.items():
        clip = folder / f"{videos}.mp4"
        shapes.write_video(clip, [("red", "circle")], seconds_per_scene=frames / 25)
        names = [f"bucket/{videos}/clip{number:03}.mp4" for number in range(VIDEOS)]
        for name in names:
            storage.put_file(str(clip), name)
        storage.pipe(f"bucket/{videos}.txt", "\n".join(f"s3://{name}" for name in names).encode())


def test_all_hosts_work_and_those_with_more_gpus_encode_more(site: Site) -> None:
    run = site.extract("long", "shares")
    _, said = run.communicate(timeout=240)
    assert run.returncode == 0, said
    assert site.finished("shares") == VIDEOS
    frames: Counter[str] = Counter()
    for host, count in ENCODER.findall(said):
        frames[host] += int(count)
    assert frames.total() == VIDEOS * FRAMES["long"], said
    assert set(frames) == {"one", "two"}
    assert 1.5 <= frames["two"] / frames["one"] <= 2.7, said


def test_an_unreachable_host_loses_no_videos_and_a_new_one_takes_over(site: Site) -> None:
    run = site.extract("short", "cut")
    wait_until(lambda: site.finished("cut") >= 3, "three videos", run)
    cut_off(site.hosts["two"])
    assert site.finished("cut") < VIDEOS / 2, "it was cut off too late to prove anything"
    site.start("late")
    _, said = run.communicate(timeout=240)
    assert run.returncode == 0, said
    assert site.finished("cut") == VIDEOS
    assert "Traceback" not in said
    assert "on late (" in said
    put = site.requested("PUT", "cut/")
    features = [count for name, count in put.items() if name.endswith("_clip.npy")]
    assert len(features) == VIDEOS
    read = site.requested("GET", "short/")
    once = min(read.values())
    again = [name for name, count in read.items() if count > once]
    assert len(again) <= 4, f"read again: {again}"  # what its one task was working on
