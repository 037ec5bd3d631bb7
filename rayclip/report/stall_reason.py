"""The sentence that says what a run waits for if nothing moves."""

from __future__ import annotations

from collections.abc import Mapping

from rayclip.report.run_stats import RunState
from rayclip.session.resources import EncoderResources


def stall_reason(
    state: RunState,
    oldest: tuple[str, float] | None,
    resources: EncoderResources,
    free: Mapping[str, float],
    cluster: Mapping[str, float],
) -> str:
    """Explain what a run waits for.

    Args:
        state: the progress of the run.
        oldest: the video that has been in progress the longest, and for how many seconds.
        resources: what its encoders and decoding tasks request from their nodes.
        free: the unused resources of the cluster, by Ray's resource names.
        cluster: all resources of the cluster.
    """
    if not state.placed and resources.gpus:
        if not cluster.get("GPU"):
            return "the encoders wait for a node with a GPU to join; the cluster has none yet"
        return (
            f"each encoder waits for {resources.gpus:g} GPUs: {free.get('GPU', 0):g} of the "
            f"cluster's {cluster['GPU']:g} are free; other runs or steps use the rest. To share "
            "a GPU, set --encoders-per-gpu and --encoders in each of them"
        )
    if not state.placed:
        return f"an encoder waits for a node with {resources.cpus:g} free CPUs; {_free(free)}"
    if not state.up:
        return "the encoders are loading their model or restarting"
    if oldest is None:
        return f"decoding tasks wait for a node with a free CPU and free memory; {_free(free)}"
    video, seconds = oldest
    return describe_in_progress(video, seconds, sum(state.waiting))


def describe_in_progress(video: str, seconds: float, waiting: int) -> str:
    """How long a video has been in progress, and whether decoding or encoding is the reason."""
    step = f"{waiting} frames wait for the encoders" if waiting else "it is being read or decoded"
    name = video if video.isprintable() else ascii(video)
    return f"{name} has been in progress for {seconds:.0f} s; {step}"


def _free(free: Mapping[str, float]) -> str:
    return f"free in the cluster: {free.get('GPU', 0):g} GPUs, {free.get('CPU', 0):g} CPUs"
