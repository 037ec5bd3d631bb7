"""Where the encoders of a run are: GPUs, or CPUs."""

from __future__ import annotations

from rayclip.errors import UsageError
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
    if gpus and wanted != "cpu":
        return "cuda", gpu_resources(gpus, settings.encoders)
    if wanted != "cpu" and not private:
        from rayclip.session.autoscaling import has_autoscaler

        if has_autoscaler():
            say_to_user("the cluster has no GPU yet: waiting until its autoscaler brings one.")
            return "cuda", gpu_resources(0, settings.encoders)
        raise UsageError(
            "The Ray that is used has no GPUs: to encode on its CPUs, give the device cpu "
            "(--device cpu)."
        )
    if wanted not in (None, "cpu"):
        say_to_user(f"device {wanted} was asked for, but there is no GPU here: using the CPU.")
    alive = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    return "cpu", cpu_resources([cpus for cpus in alive if cpus], settings.encoders)


def device_here(wanted: str | None) -> str:
    """The device of a run without Ray."""
    if wanted == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return wanted or "cuda"
    if wanted is not None:
        say_to_user(f"device {wanted} was asked for, but there is no GPU here: using the CPU.")
    return "cpu"
