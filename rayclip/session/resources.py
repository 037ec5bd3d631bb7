"""How many encoders a run gets and what each asks of its node. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor

from rayclip.errors import UsageError

CORES_PER_ENCODER = 8
ENCODING_SHARE = 0.75  # of the cores, kept for encoders that run on CPUs
TASKS_OF_GROWING = 256  # among which the work is divided if the cluster is to grow
ROUNDING = 1e-6
MAX_ENCODERS = 10_000  # of a node
MAX_VIDEOS, MAX_WITH_ARRAYS = 64, 4  # of a task


@dataclass(frozen=True)
class EncoderResources:
    """What Ray is asked for. Each decoding task asks for one CPU.

    Attributes:
        encoders: number of encoder actors.
        gpus: GPUs of each.
        cpus: CPUs of each.
        threads: CPU threads of each that encode; None on GPUs. As many as it would have cores with
            no task beside it: what decoding leaves idle is used, and tasks wait for encoders that
            are behind.
        elastic: whether nodes that join get encoders, too.
    """

    encoders: int
    gpus: float
    cpus: float
    threads: int | None
    elastic: bool = True

    def fitted_to(self, nodes: Sequence[Mapping[str, float]]) -> EncoderResources:
        """Encoders of the same size, as many as these nodes should have, and one at least.

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
        """How many decoding tasks fit beside the encoders."""
        return max(1, int(cluster_cpus - self.encoders * self.cpus))

    def exceeds(self, cluster: Mapping[str, float]) -> bool:
        """Whether a cluster must grow before all encoders, and a decoding task, have a place.

        Args:
            cluster: its resources, by Ray's names.
        """
        asked = {"GPU": self.encoders * self.gpus, "CPU": self.encoders * self.cpus + 1}
        return any(asked[kind] > cluster.get(kind, 0.0) + ROUNDING for kind in asked)

    def beside(
        self, earlier: Sequence[EncoderResources], cluster: Mapping[str, float]
    ) -> EncoderResources:
        """What the encoders of a pipeline's step ask for beside those of the steps before it.

        On GPUs all must fit, unless nodes are to come. On CPUs those of the first step have asked
        for what encoding may have: the others ask for nothing, and share it.

        Args:
            earlier: of the steps before.
            cluster: its resources, by Ray's names.

        Raises:
            UsageError: the GPUs are too few.
        """
        if not self.gpus:
            is_first = all(step.gpus for step in earlier)
            return self if is_first else replace(self, cpus=0.0)
        steps = [*earlier, self]
        gpus, asked = cluster.get("GPU", 0.0), sum(step.encoders * step.gpus for step in steps)
        if asked > gpus + ROUNDING and not any(step.exceeds(cluster) for step in steps):
            raise UsageError(
                f"The encoders of the {len(steps)} encode steps of this pipeline ask for {asked:g} "
                f"GPUs, and there are {gpus:g}: give each step encoders_per_gpu={len(steps)} and "
                f"encoders={floor(gpus)}."
            )
        return self


def gpu_resources(gpus: float, encoders: int | None, encoders_per_gpu: int) -> EncoderResources:
    """As many encoders as the GPUs have room for, or as the user asked for: GPUs may still join."""
    count = encoders or max(1, floor(gpus * encoders_per_gpu))
    each = floor(1e4 / encoders_per_gpu) / 1e4  # Ray counts no smaller parts
    return EncoderResources(count, each, 0.0, None, elastic=encoders is None)


def cpu_resources(node_cpus: Sequence[float], encoders: int | None) -> EncoderResources:
    """About one encoder for every 8 cores, sized for the largest node; every node keeps a core or
    more to decode, and smaller ones may do nothing else.

    Args:
        node_cpus: the CPUs of each node, one node at least.
        encoders: how many encoders the user asked for.
    """
    largest = max(node_cpus)
    on_largest = max(1, int(largest // CORES_PER_ENCODER))
    size = max(1, floor(min(largest * ENCODING_SHARE, largest - 1) / on_largest))
    for cpus in [*range(size, 0, -1), 0.5, 0.25, 0.1, 0.01, 0.0]:
        if sum(_places(node, cpus) for node in node_cpus) >= (encoders or 1):
            break
    count = encoders or _encoders_on(node_cpus, cpus)
    threads = max(1, ceil(cpus / ENCODING_SHARE))
    if cpus == 1 and largest < 3:
        cpus = 0.5  # on two cores: an encoder of another run then leaves one to decode
    return EncoderResources(count, 0.0, cpus, threads, elastic=encoders is None)


def _encoders_on(node_cpus: Sequence[float], size: float) -> int:
    return sum(
        min(max(1, int(cpus // CORES_PER_ENCODER)), _places(cpus, size)) for cpus in node_cpus
    )


def _places(cpus: float, size: float) -> int:
    """How many encoders of a size a node can hold beside a task of one CPU.

    Decoding tasks ask for one, and so do those with which Ray Data divides the work.
    """
    if cpus < 1:
        return 0
    return floor((cpus - 1) / size + ROUNDING) if size else MAX_ENCODERS


def tasks_to_plan_for(tasks: int, grows: bool) -> int:
    """Among how many tasks at once the work is divided.

    Args:
        tasks: that fit into the cluster now.
        grows: whether nodes are to come. What brings them sees no more waiting than is divided.
    """
    return max(tasks, TASKS_OF_GROWING) if grows else tasks


def videos_per_task(videos: int, tasks_at_once: int, with_arrays: bool = False) -> int:
    """Rows of a block: few enough to share the work out, many enough to spare the driver.

    A one-row block costs the driver some 7 ms of CPU, so that ten million of them would take it
    20 hours; blocks of many rows leave the last tasks alone with much to do.

    Args:
        videos: in all.
        tasks_at_once: among which they are shared out.
        with_arrays: whether the features are in the results, which a task holds until it is done.
    """
    most = MAX_WITH_ARRAYS if with_arrays else MAX_VIDEOS
    return max(1, min(most, videos // (8 * tasks_at_once)))
