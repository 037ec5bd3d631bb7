"""Where the encoders of a run are placed: on GPUs or on CPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayclip.console import say_to_user
from rayclip.errors import UsageError
from rayclip.session.resources import EncoderResources, cpu_resources, gpu_resources
from rayclip.settings import Settings


def device_on_ray(settings: Settings, private: bool) -> tuple[str, EncoderResources]:
    """Return the device of this run and the resources that its encoders request.

    Raises:
        UsageError: this Ray does not have the device.
    """
    import ray

    wanted = settings.device
    if not private and wanted is not None and ":" in wanted:
        raise UsageError(
            f"device {wanted} names a GPU of one machine: on a cluster, use cuda and the number of "
            "encoders."
        )
    cluster = ray.cluster_resources()
    cpus = _cpus_for_us(settings.encoders)
    if wanted != "cpu":
        if cluster.get("GPU"):
            return "cuda", _on_gpus(settings, cluster)
        if not private and not _is_of_this_process():
            if settings.encoders is not None:
                return "cuda", _on_gpus(settings, cluster)
            raise UsageError(
                "This Ray has no GPUs: to encode on its CPUs, use --device cpu; to wait until GPUs "
                "join, say how many encoders you want (--encoders N)."
            )
        if wanted is not None:
            say_to_user(f"device {wanted} was requested, but there is no GPU here: using the CPU.")
        elif not private:
            say_to_user("The Ray that this process started has no GPU: using the CPU.")
    return "cpu", cpu_resources(cpus, settings.encoders)


def _on_gpus(settings: Settings, cluster: Mapping[str, float]) -> EncoderResources:
    gpus = cluster.get("GPU", 0.0)
    resources = gpu_resources(gpus, settings.encoders, settings.encoders_per_gpu)
    if resources.encoders > gpus * settings.encoders_per_gpu:
        say_to_user(
            f"{resources.encoders} encoders were requested, but this Ray has {gpus:g} GPUs: the "
            "other encoders wait until more GPUs join. (--encoders-per-gpu K puts K on one GPU.)"
        )
    return resources


def _is_of_this_process() -> bool:
    """Whether ``ray.init()`` in this very process started the connected Ray."""
    import ray

    worker: Any = ray.get_runtime_context().worker
    return bool(worker.node.is_head())


def _cpus_for_us(encoders: int | None) -> list[float]:
    """Return the CPUs of each node that has at least one, without those that the calling task or
    actor holds.

    Args:
        encoders: how many the user requested: then nodes may still join.

    Raises:
        UsageError: there are no CPUs, and none can be expected.
    """
    import ray

    here = ray.get_runtime_context()
    held = 0.0
    if here.worker.mode == ray.WORKER_MODE:
        held = here.get_assigned_resources().get("CPU", 0.0)
    cpus = [
        node["Resources"].get("CPU", 0.0) - held * (node["NodeID"] == here.get_node_id())
        for node in ray.nodes()
        if node["Alive"]
    ]
    cpus = [count for count in cpus if count >= 1]
    if not cpus and (held or encoders is None):
        raise UsageError(
            f"The task or actor that calls rayclip holds {held:g} CPUs, and its Ray has no other "
            "CPU: give it fewer (num_cpus=0 is enough), or give Ray more."
            if held
            else "This Ray has no node with a whole CPU, which decoding needs."
        )
    return cpus or [1.0]


def devices_here(wanted: str | None, gpus: int) -> list[str]:
    """Return the devices of a run without Ray.

    Args:
        wanted: ``cpu``, ``cuda``, ``cuda:N`` or None.
        gpus: of this machine.
    """
    if wanted == "cpu" or not gpus:
        if wanted not in ("cpu", None):
            say_to_user(f"device {wanted} was requested, but there is no GPU here: using the CPU.")
        return ["cpu"]
    if wanted not in ("cuda", None):
        return [wanted]
    return [f"cuda:{number}" for number in range(gpus)] if gpus > 1 else ["cuda"]
