"""Other runs of rayclip on the same cluster, of other jobs and of this one: they share its devices.

The control actor of each has a name that says which devices it uses; so they find one another.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import ray
from ray.exceptions import RayError

NAMESPACE = "rayclip"
ANSWER_S = 2.0  # one that is slower than this is taken for at work


def new_name(device: str) -> str:
    """A name for the control actor of a run on devices of this kind."""
    return f"pool on {device.partition(':')[0]} {secrets.token_hex(8)}"


def others(name: str) -> list[Any]:
    """The control actors of all other runs on devices of the same kind as the one of this name."""
    found = []
    kind = name.rpartition(" ")[0] + " "
    for actor in ray.util.list_named_actors(all_namespaces=True):
        other = actor["name"]
        if actor["namespace"] == NAMESPACE and other.startswith(kind) and other != name:
            try:
                found.append(ray.get_actor(other, namespace=NAMESPACE))
            except ValueError:  # it is gone
                continue
    return found


async def at_work_beside(name: str) -> int:
    """How many other runs use, or want to use, devices of the same kind."""
    asked = [asyncio.wait_for(_is_at_work(other), ANSWER_S) for other in others(name)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    return sum(answer is True or isinstance(answer, TimeoutError) for answer in answers)


async def _is_at_work(pool: Any) -> bool:
    try:
        answer: bool = await pool.at_work.remote()
    except RayError:  # it is gone
        return False
    return answer
