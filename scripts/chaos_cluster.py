"""A Ray of three nodes on this machine, on loopback, whose processes can be found and killed."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

NODES = 3
CPUS_OF_NODE = 2
ENCODER = "ray::Encoder"
DECODER = "ray::MapBatches"
RAYCLIP_PROCESSES = (ENCODER, DECODER, "ray::Pool")
IDLE_WITHIN_S = 30.0


class ThreeNodes:
    """A cluster like somebody else's, made of raylets of this machine.

    Attributes:
        environment: what a process needs in its environment to connect.
        address: of the cluster.
    """

    def __init__(self) -> None:
        """Start it; ray must not have been imported before."""
        self._folder = Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))  # sockets' paths are short
        self.environment = {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray then listens on 127.0.0.1 alone
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        os.environ.update(self.environment, RAY_TMPDIR=str(self._folder))
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster()
        self._cluster.add_node(num_cpus=CPUS_OF_NODE, include_dashboard=False)
        self._others: list[Any] = [self._added() for _ in range(NODES - 1)]
        self.address: str = self._cluster.address

    def raylets(self) -> list[psutil.Process]:
        """Those that are running, without the head's, which the driver is connected to."""
        return [_raylet(node) for node in self._others if node.any_processes_alive()]

    def workers(self, *titles: str) -> list[psutil.Process]:
        """The processes of all nodes whose title begins like one of these."""
        below: list[psutil.Process] = []
        for node in [self._cluster.head_node, *self._others]:
            with suppress(psutil.NoSuchProcess):
                below += _raylet(node).children(recursive=True)
        return [process for process in below if _title(process).startswith(titles)]

    def left_by_run(self) -> list[str]:
        """Wait for the end of what a run had started; what never ended."""
        deadline = time.monotonic() + IDLE_WITHIN_S
        while left := self.workers(*RAYCLIP_PROCESSES):
            if time.monotonic() > deadline:
                return [_title(process) for process in left]
            time.sleep(0.1)
        return []

    def replace_dead_nodes(self) -> None:
        """Start a new node for each whose raylet is gone."""
        for node in [node for node in self._others if not node.any_processes_alive()]:
            self._others.remove(node)
            self._cluster.remove_node(node, allow_graceful=False)
            self._others.append(self._added())

    def close(self) -> None:
        self._cluster.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _added(self) -> Any:
        return self._cluster.add_node(num_cpus=CPUS_OF_NODE)


def _raylet(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
