"""A Ray of several nodes on this machine, on loopback, whose processes can be found and killed."""

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
IDLE_WITHIN_S = 30.0


class PretendedNodes:
    """A cluster like somebody else's, made of raylets of this machine.

    Attributes:
        environment: what a process needs in its environment to connect.
        address: of the cluster.
        folder: where its processes have their files.
    """

    def __init__(
        self, nodes: int = 3, cpus: int = 2, gpus: int = 0, store: int = 150 * 2**20
    ) -> None:
        """Start it; ray must not have been imported before.

        Args:
            nodes: how many, the head's among them.
            cpus: that each says it has.
            gpus: that each says it has.
            store: bytes of each one's object store.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))  # sockets' paths are short
        self.environment = {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray then listens on 127.0.0.1 alone
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
            self.add(*self._each)

    def add(self, cpus: int, gpus: int) -> psutil.Process:
        """Start another node, and give its raylet."""
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
