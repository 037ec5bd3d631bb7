"""What several test files share."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import psutil
import pytest
from commands import ON_LOOPBACK, wait_until
from makers import SHARED_DATA


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real videos and what ffmpeg makes of them: too large, and not ours, to be in the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"there is no test data in {SHARED_DATA} (RAYCLIP_TEST_DATA names another)")
    return SHARED_DATA


@pytest.fixture
def memory_url(tmp_path: Path) -> Iterator[str]:
    """A folder of its own on fsspec's in-memory storage."""
    url = f"memory://{tmp_path.name}"
    yield url
    fs, root = fsspec.core.url_to_fs(url)
    if fs.exists(root):
        fs.rm(root, recursive=True)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Ray with four CPUs that somebody else started, on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("ray")
    environment = {**os.environ, **ON_LOOPBACK, "RAY_USAGE_STATS_ENABLED": "0"}
    environment["RAY_AUTH_MODE"] = "disabled"  # else a token in ~/.ray would be demanded
    start = (
        f"start --head --block --node-ip-address=127.0.0.1 --port={port} --num-cpus=4 "
        f"--num-gpus=0 --include-dashboard=false --temp-dir=/tmp/rc-{port}"
    )
    head = subprocess.Popen(
        [Path(sys.executable).with_name("ray"), *start.split()],
        env=environment,
        stdout=(folder / "log").open("w"),
        stderr=subprocess.STDOUT,
    )
    try:
        log = folder / "log"
        wait_until(lambda: "Ray runtime started" in log.read_text(), "a Ray cluster")
        yield f"127.0.0.1:{port}"
    finally:
        for process in [*psutil.Process(head.pid).children(recursive=True), head]:
            process.kill()
        head.wait()
        shutil.rmtree(f"/tmp/rc-{port}", ignore_errors=True)
