"""What a run waits for, in words, when nothing moves."""

from __future__ import annotations

from collections.abc import Mapping

from rayclip.report.run_stats import RunState
from rayclip.session.resources import EncoderResources


def stall_reason(
    state: RunState,
    longest: tuple[str, float] | None,
    resources: EncoderResources,
    free: Mapping[str, float],
    cluster: Mapping[str, float],
) -> str:
    """Say what holds a run.

    Args:
        state: how far it is.
        longest: the video that is at work the longest, and for how many seconds.
        resources: what its encoders and decoding tasks ask of their nodes.
        free: what nobody uses just now, by Ray's names of resources.
        cluster: all that there is, used or not.
    """
    if not state.placed and resources.gpus:
        if not cluster.get("GPU"):
            return "the encoders wait for a node with a GPU to join the cluster, which has none yet"
        return (
            f"each encoder waits for {resources.gpus:g} GPUs: {free.get('GPU', 0):g} of the "
            f"cluster's {cluster['GPU']:g} are free, and other runs or steps use the rest. To put "
            "several on one GPU, give each of them --encoders-per-gpu and --encoders"
        )
    if not state.placed:
        return f"an encoder waits for a node with {resources.cpus:g} CPUs free; {_free(free)}"
    if not state.up:
        return "the encoders load their model or are started again"
    if longest is None:
        return f"decoding tasks wait for a node with 1 CPUs and memory free; {_free(free)}"
    video, seconds = longest
    return at_work(video, seconds, sum(state.waiting))


def at_work(video: str, seconds: float, waiting: int) -> str:
    """Name the video that is at work the longest, and the side that it is on."""
    side = f"{waiting} frames are with the encoders" if waiting else "it is read or decoded"
    name = video if video.isprintable() else ascii(video)
    return f"{name} is at work for {seconds:.0f} s; {side}"


def _free(free: Mapping[str, float]) -> str:
    return f"the cluster has {free.get('GPU', 0):g} GPUs, {free.get('CPU', 0):g} CPUs free"
