"""Rays that somebody else than rayclip started, on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
from commands import ON_LOOPBACK, wait_until


@contextmanager
def ray_head(folder: Path, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start a Ray of four CPUs, and give its address.

    Args:
        folder: for its log, and where what its workers write under relative names goes.
        env: variables for its processes; without any, it asks for no token.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, **ON_LOOPBACK, "RAY_USAGE_STATS_ENABLED": "0"}
    environment["RAY_AUTH_MODE"] = "disabled"  # else a token in ~/.ray would be demanded
    start = (
        f"start --head --block --node-ip-address=127.0.0.1 --port={port} --num-cpus=4 "
        f"--num-gpus=0 --include-dashboard=false --temp-dir=/tmp/rc-{port}"
    )
    head = subprocess.Popen(
        [Path(sys.executable).with_name("ray"), *start.split()],
        env={**environment, **(env or {})},
        cwd=folder,
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
