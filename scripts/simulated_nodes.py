"""A Ray cluster of several nodes on this machine, whose processes can be found and killed."""

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

ENCODER = "ray::Encoder"
DECODER = "ray::MapBatches"
RAYCLIP_PROCESSES = (ENCODER, DECODER, "ray::ControlActor")
CLEANUP_S = 30.0


class SimulatedNodes:
    """A Ray cluster whose nodes are raylets on this machine, on loopback.

    Attributes:
        environment: the environment variables that a process needs to connect.
        address: the address of the cluster.
        folder: the temporary folder of its processes.
    """

    def __init__(
        self, nodes: int = 3, cpus: int = 2, gpus: int = 0, store: int = 150 * 2**20
    ) -> None:
        """Start the cluster; ray must not have been imported before.

        Args:
            nodes: number of nodes, including the head.
            cpus: CPUs that each node declares.
            gpus: GPUs that each node declares.
            store: size of each node's object store, in bytes.
        """
        # Paths of sockets must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))
        self.environment = {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray then listens on 127.0.0.1 only
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        os.environ.update(self.environment, RAY_TMPDIR=str(self.folder))
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster()
        self._each = cpus, gpus
        self._store = store
        self._cluster.add_node(
            num_cpus=cpus, num_gpus=gpus, object_store_memory=store, include_dashboard=False
        )
        self._others: list[Any] = []
        for _ in range(nodes - 1):
            self.add(*self._each)
        self.address: str = self._cluster.address

    def raylets(self) -> list[psutil.Process]:
        """The running raylets, except that of the head, to which the driver is connected."""
        return [_raylet(node) for node in self._others if node.any_processes_alive()]

    def workers(self, *titles: str) -> list[psutil.Process]:
        """The processes of all nodes whose title starts with one of these."""
        below: list[psutil.Process] = []
        for node in [self._cluster.head_node, *self._others]:
            with suppress(psutil.NoSuchProcess):
                below += _raylet(node).children(recursive=True)
        return [process for process in below if _title(process).startswith(titles)]

    def remaining_processes(self) -> list[str]:
        """Wait for the processes of a run to end; return the titles of those that did not."""
        deadline = time.monotonic() + CLEANUP_S
        while remaining := self.workers(*RAYCLIP_PROCESSES):
            if time.monotonic() > deadline:
                return [_title(process) for process in remaining]
            time.sleep(0.1)
        return []

    def replace_dead_nodes(self) -> None:
        """Replace each node whose raylet died."""
        for node in [node for node in self._others if not node.any_processes_alive()]:
            self._others.remove(node)
            self._cluster.remove_node(node, allow_graceful=False)
            self.add(*self._each)

    def add(self, cpus: int, gpus: int) -> psutil.Process:
        """Start another node, and return its raylet."""
        node = self._cluster.add_node(num_cpus=cpus, num_gpus=gpus, object_store_memory=self._store)
        self._others.append(node)
        return _raylet(self._others[-1])

    def close(self) -> None:
        self._cluster.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)


def _raylet(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
