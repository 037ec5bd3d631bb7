"""How many encoders a run gets and what each asks of its node. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

CORES_PER_ENCODER = 8
ENCODING_SHARE = 0.75  # of the cores, where encoders run on CPUs; the others decode


@dataclass(frozen=True)
class EncoderResources:
    """What Ray is asked for.

    Attributes:
        encoders: number of encoder actors.
        gpus: GPUs of each.
        cpus: CPUs of each.
        decoding_cpus: CPUs of each decoding task.
    """

    encoders: int
    gpus: float
    cpus: float
    decoding_cpus: float

    @property
    def threads(self) -> int | None:
        """CPU threads of a forward pass; None on GPUs."""
        return None if self.gpus else max(1, round(self.cpus))

    def decoding_tasks(self, cluster_cpus: float) -> int:
        """How many decoding tasks fit beside the encoders."""
        left = cluster_cpus - self.encoders * self.cpus
        return max(1, int(left / self.decoding_cpus))


def gpu_resources(gpus: float, encoders: int | None) -> EncoderResources:
    """One encoder for each GPU; more than that share them in equal fractions."""
    count = encoders or max(1, floor(gpus))
    return EncoderResources(count, min(1.0, gpus / count), 0.0, 1.0)


def cpu_resources(node_cpus: Sequence[float], encoders: int | None) -> EncoderResources:
    """About one encoder for every 8 cores; some cores of the cluster are left to decode.

    Args:
        node_cpus: the CPUs of each node.
        encoders: how many encoders the user asked for.
    """
    total = sum(node_cpus)
    count = encoders or sum(max(1, int(cpus // CORES_PER_ENCODER)) for cpus in node_cpus)
    share = min(total * ENCODING_SHARE, total - 1) if total > 1 else total / 2
    each = share / count
    cpus = float(floor(each)) if each >= 1 else floor(each * 100) / 100
    largest = max(node_cpus)
    if cpus > largest - 1 and largest > 1:
        cpus = largest - 1
    return EncoderResources(count, 0.0, cpus, min(1.0, total - cpus * count))


def videos_per_task(videos: int, tasks_at_once: int) -> int:
    """Rows of a block: few enough to share the work out, many enough to spare the driver.

    A one-row block costs the driver some 7 ms of CPU, so that ten million of them would take it
    20 hours; blocks of many rows leave the last tasks alone with much to do.
    """
    return max(1, min(64, videos // (8 * tasks_at_once)))
