"""How many encoders a run gets, and what each requests of its node. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor

from rayclip.errors import UsageError

CORES_PER_ENCODER = 8
ENCODING_SHARE = 0.75  # of the cores, reserved for encoders on CPUs
TASKS_IF_GROWING = 256  # among which the work is divided if the cluster must grow
ROUNDING = 1e-6
MAX_ENCODERS = 10_000  # per node
MAX_VIDEOS, MAX_WITH_ARRAYS = 64, 4  # per task


@dataclass(frozen=True)
class EncoderResources:
    """What the encoders request of Ray. Each decoding task requests one CPU.

    Attributes:
        encoders: number of encoder actors.
        gpus: GPUs per encoder.
        cpus: CPUs per encoder.
        threads: CPU threads per encoder; None on GPUs. They are as many as the cores it would have
            without decoding tasks next to it: it uses what decoding leaves idle, and tasks wait for
            encoders that are behind.
        elastic: whether nodes that join get encoders as well.
    """

    encoders: int
    gpus: float
    cpus: float
    threads: int | None
    elastic: bool = True

    def scaled_to(self, nodes: Sequence[Mapping[str, float]]) -> EncoderResources:
        """Return the same resources with as many encoders as these nodes should have, at least one.

        Args:
            nodes: the resources of each, by Ray's names.
        """
        if not self.elastic:
            return self
        if self.gpus:
            count = sum(floor(node.get("GPU", 0.0) / self.gpus + ROUNDING) for node in nodes)
        else:
            count = _encoders_on([node.get("CPU", 0.0) for node in nodes], self.cpus)
        return replace(self, encoders=max(1, count))

    def decoding_tasks(self, cluster_cpus: float) -> int:
        """Return how many decoding tasks fit next to the encoders."""
        return max(1, int(cluster_cpus - self.encoders * self.cpus))

    def exceeds(self, cluster: Mapping[str, float]) -> bool:
        """Whether a cluster must grow before all encoders and one decoding task fit.

        Args:
            cluster: its resources, by Ray's names.
        """
        requested = {"GPU": self.encoders * self.gpus, "CPU": self.encoders * self.cpus + 1}
        return any(requested[kind] > cluster.get(kind, 0.0) + ROUNDING for kind in requested)

    def alongside(
        self, earlier: Sequence[EncoderResources], cluster: Mapping[str, float]
    ) -> EncoderResources:
        """Return what the encoders of a pipeline's step request, given the steps before it.

        On GPUs, all must fit, unless nodes can be expected. On CPUs, the first step requests all
        CPUs that encoding may have; later steps request none and share them.

        Args:
            earlier: the resources of the earlier steps.
            cluster: its resources, by Ray's names.

        Raises:
            UsageError: there are too few GPUs.
        """
        if not self.gpus:
            is_first = all(step.gpus for step in earlier)
            return self if is_first else replace(self, cpus=0.0)
        steps = [*earlier, self]
        gpus = cluster.get("GPU", 0.0)
        requested = sum(step.encoders * step.gpus for step in steps)
        if requested > gpus + ROUNDING and not any(step.exceeds(cluster) for step in steps):
            raise UsageError(
                f"The {len(steps)} encode steps of this pipeline request {requested:g} GPUs, but "
                f"there are {gpus:g}: give each step encoders_per_gpu={len(steps)} and "
                f"encoders={floor(gpus)}."
            )
        return self


def gpu_resources(gpus: float, encoders: int | None, encoders_per_gpu: int) -> EncoderResources:
    """Return as many encoders as the GPUs have room for, or as the user requested: GPUs may still
    join."""
    count = encoders or max(1, floor(gpus * encoders_per_gpu))
    each = floor(1e4 / encoders_per_gpu) / 1e4  # Ray's smallest unit
    return EncoderResources(count, each, 0.0, None, elastic=encoders is None)


def cpu_resources(node_cpus: Sequence[float], encoders: int | None) -> EncoderResources:
    """Return about one encoder per 8 cores, sized for the largest node.

    Every node keeps at least a core to decode; smaller nodes may only decode.

    Args:
        node_cpus: the CPUs of each node; at least one node.
        encoders: how many encoders the user requested.
    """
    largest = max(node_cpus)
    on_largest = max(1, int(largest // CORES_PER_ENCODER))
    size = max(1, floor(min(largest * ENCODING_SHARE, largest - 1) / on_largest))
    for cpus in [*range(size, 0, -1), 0.5, 0.25, 0.1, 0.01, 0.0]:
        if sum(_max_encoders(node, cpus) for node in node_cpus) >= (encoders or 1):
            break
    count = encoders or _encoders_on(node_cpus, cpus)
    threads = max(1, ceil(cpus / ENCODING_SHARE))
    if cpus == 1 and largest < 3:
        cpus = 0.5  # on two cores: then the encoders of two runs leave one to decode
    return EncoderResources(count, 0.0, cpus, threads, elastic=encoders is None)


def _encoders_on(node_cpus: Sequence[float], size: float) -> int:
    return sum(
        min(max(1, int(cpus // CORES_PER_ENCODER)), _max_encoders(cpus, size)) for cpus in node_cpus
    )


def _max_encoders(cpus: float, size: float) -> int:
    """Return how many encoders of this size fit on a node, next to a task with one CPU.

    Decoding tasks request one CPU, and so do the tasks with which Ray Data splits the input.
    """
    if cpus < 1:
        return 0
    return floor((cpus - 1) / size + ROUNDING) if size else MAX_ENCODERS


def planned_tasks(tasks: int, grows: bool) -> int:
    """Return the number of concurrent tasks among which the work is divided.

    Args:
        tasks: that fit on the cluster now.
        grows: whether nodes can be expected. An autoscaler sees only as many waiting tasks as there
            are.
    """
    return max(tasks, TASKS_IF_GROWING) if grows else tasks


def videos_per_task(videos: int, tasks_at_once: int, with_arrays: bool = False) -> int:
    """Return the number of rows in a block: few enough to spread the work, enough to spare the
    driver.

    A block costs the driver some 7 ms of CPU: with one row each, ten million would take it 20
    hours. Blocks with many rows leave the last tasks alone with much to do.

    Args:
        videos: in total.
        tasks_at_once: that share them.
        with_arrays: whether results contain the features, which a task holds until it ends.
    """
    limit = MAX_WITH_ARRAYS if with_arrays else MAX_VIDEOS
    return max(1, min(limit, videos // (8 * tasks_at_once)))
