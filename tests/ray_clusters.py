"""Ray clusters that rayclip did not start, on loopback."""

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

import psutil
import simulated_nodes
from run_cli import ON_LOOPBACK, alive, title, wait_until

# With `ray start`, nodes cannot join a head that is restricted to loopback.
NODES = """
import json, sys
from simulated_nodes import SimulatedNodes

cluster = SimulatedNodes(1, cpus=2)
print(json.dumps([cluster.address, str(cluster.folder), cluster.environment]), flush=True)
for line in sys.stdin:
    cpus, gpus = map(int, line.split())
    print(cluster.add(cpus, gpus).pid, flush=True)
cluster.close()
"""


FEWER_PROCESSES = "--include-dashboard=false --include-log-monitor=false --no-monitor"
"""Arguments of ``ray start`` that save processes: each takes seconds to start. Without a monitor,
nothing scales a cluster."""


@dataclass
class Nodes:
    """A Ray cluster that nodes can join, all on loopback.

    Attributes:
        address: the address of the head, a node with two CPUs.
        folder: the temporary folder of its processes.
        environment: the environment variables that a client needs.
    """

    address: str
    folder: str
    environment: dict[str, str]
    _program: subprocess.Popen[str]

    def add(self, cpus: int, gpus: int) -> psutil.Process:
        """Add a node that declares these resources; return its raylet, which ends the node."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(f"{cpus} {gpus}\n")
        self._program.stdin.flush()
        return psutil.Process(int(self._program.stdout.readline()))

    def encoders(self) -> list[psutil.Process]:
        return encoders_below(self.folder)


@contextmanager
def ray_nodes(env: Mapping[str, str]) -> Iterator[Nodes]:
    """Start a Ray cluster that nodes can join.

    Args:
        env: environment variables of its processes.
    """
    program = subprocess.Popen(
        [sys.executable, "-c", NODES],
        env={**os.environ, **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(simulated_nodes.__file__).parent,
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
    """The encoders on all nodes of the Ray cluster with this temporary folder."""
    running = [p for p in psutil.process_iter() if title(p).startswith("ray::Encoder")]
    return [p for p in alive(running) if any(folder in title(parent) for parent in p.parents())]


@contextmanager
def ray_head(
    folder: Path,
    env: Mapping[str, str] | None = None,
    options: str = f"--num-cpus=4 --num-gpus=0 {FEWER_PROCESSES}",
    port: int | None = None,
) -> Iterator[str]:
    """Start a Ray cluster of one node, and yield its address.

    Args:
        folder: the working folder of its processes, with its log.
        env: environment variables of its processes; by default, no token is required.
        options: additional arguments of ``ray start``.
        port: the port of the head; any free one by default.
    """
    port = port or free_port()
    environment = {**os.environ, **ON_LOOPBACK}
    environment["RAY_AUTH_MODE"] = "disabled"  # otherwise Ray would require a token in ~/.ray
    start = (
        f"start --head --block --node-ip-address=127.0.0.1 --port={port} "
        f"--temp-dir=/tmp/rc-{port} {options}"
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


def kill_workers(cluster: str, name: str, running: subprocess.Popen[str]) -> None:
    """Kill the workers with this name whose raylet works in the cluster's temporary folder."""
    folder = f"/tmp/rc-{cluster.partition(':')[2]}/"
    found: list[psutil.Process] = []

    def is_there() -> bool:
        workers = [p for p in psutil.process_iter() if title(p).startswith(name)]
        found[:] = [p for p in workers if any(folder in title(parent) for parent in p.parents())]
        return bool(found)

    wait_until(is_there, f"a process {name}", running)
    for process in found:
        process.kill()
