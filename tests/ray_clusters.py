"""Rays that somebody else than rayclip started, on loopback."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pretended_nodes
import psutil
from run_cli import ON_LOOPBACK, alive, title, wait_until

# `ray start` lets nodes join only where it is not held to loopback.
NODES = """
import json, sys
from pretended_nodes import PretendedNodes

cluster = PretendedNodes(1, cpus=2)
print(json.dumps([cluster.address, str(cluster.folder), cluster.environment]), flush=True)
for line in sys.stdin:
    cpus, gpus = map(int, line.split())
    print(cluster.add(cpus, gpus).pid, flush=True)
cluster.close()
"""


@dataclass
class Nodes:
    """A Ray that nodes can join, all of them on loopback.

    Attributes:
        address: of the head, a node of two CPUs.
        environment: what who connects needs.
    """

    address: str
    folder: str
    environment: dict[str, str]
    _program: subprocess.Popen[str]

    def add(self, cpus: int, gpus: int) -> psutil.Process:
        """Let a node join that says it has so much; its raylet, with which it ends."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(f"{cpus} {gpus}\n")
        self._program.stdin.flush()
        return psutil.Process(int(self._program.stdout.readline()))

    def encoders(self) -> list[psutil.Process]:
        return encoders_below(self.folder)


@contextmanager
def ray_nodes(env: Mapping[str, str]) -> Iterator[Nodes]:
    """Start a Ray that nodes can join.

    Args:
        env: variables for its processes.
    """
    program = subprocess.Popen(
        [sys.executable, "-c", NODES],
        env={**os.environ, **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(pretended_nodes.__file__).parent,
    )
    assert program.stdin is not None
    assert program.stdout is not None
    with program:
        address, folder, environment = json.loads(program.stdout.readline())
        try:
            yield Nodes(address, folder, environment, program)
        finally:
            program.stdin.close()
            program.wait()


def encoders_below(folder: str) -> list[psutil.Process]:
    """The encoders of the Ray whose temporary folder this is, on whichever node."""
    running = [p for p in psutil.process_iter() if title(p).startswith("ray::Encoder")]
    return [p for p in alive(running) if any(folder in title(parent) for parent in p.parents())]


@contextmanager
def ray_head(
    folder: Path,
    env: Mapping[str, str] | None = None,
    options: str = "--num-cpus=4 --num-gpus=0",
    port: int | None = None,
) -> Iterator[str]:
    """Start a Ray, and give its address.

    Args:
        folder: for its log, and where what its workers write under relative names goes.
        env: variables for its processes; without any, it asks for no token.
        options: more words for ``ray start``.
        port: where; any that is free by default.
    """
    port = port or free_port()
    environment = {**os.environ, **ON_LOOPBACK}
    environment["RAY_AUTH_MODE"] = "disabled"  # else a token in ~/.ray would be demanded
    start = (
        f"start --head --block --node-ip-address=127.0.0.1 --port={port} "
        f"--include-dashboard=false --temp-dir=/tmp/rc-{port} {options}"
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


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
