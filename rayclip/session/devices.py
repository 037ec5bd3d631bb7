"""Where the encoders of a run are: GPUs, or CPUs."""

from __future__ import annotations

from rayclip.errors import UsageError
from rayclip.interrupts import import_whole
from rayclip.messages import say_to_user
from rayclip.session.resources import EncoderResources, cpu_resources, gpu_resources
from rayclip.settings import Settings


def device_on_ray(settings: Settings, private: bool) -> tuple[str, EncoderResources]:
    """The device of this run and what its encoders ask for.

    Raises:
        UsageError: this Ray does not have the device.
    """
    import ray

    wanted = settings.device
    if not private and wanted is not None and ":" in wanted:
        raise UsageError(
            f"device {wanted} names a GPU of one machine: on a cluster say cuda, and how many "
            "encoders."
        )
    gpus = ray.cluster_resources().get("GPU", 0.0)
    cpus = _cpus_for_us()
    if gpus and wanted != "cpu":
        return "cuda", gpu_resources(gpus, settings.encoders)
    if wanted != "cpu" and not private:
        from rayclip.session.autoscaling import has_autoscaler

        if has_autoscaler():
            say_to_user("the cluster has no GPU yet: waiting until its autoscaler brings one.")
            return "cuda", gpu_resources(0, settings.encoders)
        if not _is_this_machine():
            raise UsageError(
                "The Ray that is used has no GPUs: to encode on its CPUs, give the device cpu "
                "(--device cpu)."
            )
        if wanted is None:
            say_to_user("The Ray that is used is this machine, without a GPU: using the CPU.")
    if wanted not in (None, "cpu"):
        say_to_user(f"device {wanted} was asked for, but there is no GPU here: using the CPU.")
    return "cpu", cpu_resources(cpus, settings.encoders)


def _is_this_machine() -> bool:
    """Whether the Ray that is connected has one node, and we are on it."""
    import ray

    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    return nodes == [ray.get_runtime_context().get_node_id()]


def _cpus_for_us() -> list[float]:
    """The CPUs of each node that has one, without those that the calling task or actor holds.

    Raises:
        UsageError: there are none, now or with an autoscaler's help.
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
    if not cpus:
        from rayclip.session.autoscaling import has_autoscaler

        if has_autoscaler():
            return [1.0]
        raise UsageError(
            f"The task or actor that calls rayclip holds {held:g} CPUs, and its Ray has not one "
            "more: give it fewer (num_cpus=0 is enough), or the Ray more."
            if held
            else "The Ray that is used has no node with a whole CPU, which decoding needs."
        )
    return cpus


def device_here(wanted: str | None) -> str:
    """The device of a run without Ray."""
    if wanted == "cpu":
        return "cpu"
    torch = import_whole("torch")
    if torch.cuda.is_available():
        return wanted or "cuda"
    if wanted is not None:
        say_to_user(f"device {wanted} was asked for, but there is no GPU here: using the CPU.")
    return "cpu"
