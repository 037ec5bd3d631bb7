"""What a run waits for, in words, when nothing moves."""

from __future__ import annotations

from collections.abc import Mapping

from rayclip.report.run_state import RunState
from rayclip.session.resources import EncoderResources

ASKED = {"GPU": "GPUs", "CPU": "CPUs"}


def awaited(
    state: RunState,
    longest: tuple[str, float] | None,
    resources: EncoderResources,
    free: Mapping[str, float],
) -> str:
    """Say what holds a run.

    Args:
        state: how far it is.
        longest: the video that is at work the longest, and for how many seconds.
        resources: what its encoders and decoding tasks ask of their nodes.
        free: what nobody uses just now, by Ray's names of resources.
    """
    if not state.placed:
        asked = (("GPU", resources.gpus), ("CPU", resources.cpus))
        needs = " and ".join(f"{count:g} {ASKED[kind]}" for kind, count in asked if count)
        return f"an encoder waits for a node with {needs} free; {_free(free)}"
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
    there = ", ".join(f"{free.get(kind, 0):g} {name}" for kind, name in ASKED.items())
    return f"the cluster has {there} free"
