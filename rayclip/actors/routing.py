"""Which encoder gets the next frames of a task: one on its own node, unless others would run dry.

Frames of 150 kB travel through the network to any other node, and all nodes of a cluster decode. So
they stay where they are as long as every encoder has work.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

ALIKE_S = 0.5  # encoders that will be through with theirs so close together are alike
PLENTY_S = 1.0  # of work: an encoder that has it needs no frames from afar
NEAR_S = 1.0  # that frames wait for an encoder on this node before they travel


def candidates(
    loads_s: Mapping[int, float], near: Collection[int], open_: Collection[int], waited_s: float
) -> list[int]:
    """The encoders that are equally good for the next frames; none where these should wait.

    Args:
        loads_s: seconds until each encoder, by its number, is through with what it has.
        near: those on the same node.
        open_: those that take more frames of this task now.
        waited_s: how long these frames have waited.
    """
    there = [number for number in loads_s if number in near]
    if there and _may_stay(min(loads_s[number] for number in there), min(loads_s.values())):
        there = [number for number in there if number in open_]
        if there or waited_s < NEAR_S:
            return _least_loaded(there, loads_s)
    return _least_loaded([number for number in loads_s if number in open_], loads_s)


def _may_stay(near_s: float, least_s: float) -> bool:
    return least_s >= PLENTY_S or near_s <= least_s + ALIKE_S


def _least_loaded(numbers: list[int], loads_s: Mapping[int, float]) -> list[int]:
    limit_s = min((loads_s[number] for number in numbers), default=0.0) + ALIKE_S
    return [number for number in numbers if loads_s[number] <= limit_s]
