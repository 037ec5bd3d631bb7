"""Where a run goes if nobody says: to the Ray that is there, without Ray, or to a private one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from rayclip.session.ray_session import PRIVATE, VISIBLE_GPUS, is_connected
from rayclip.settings import Settings

WITHOUT_RAY = "none"
DRIVER = Path("/proc/driver/nvidia/gpus")  # a folder for each GPU of this machine or container


class Address(NamedTuple):
    """Where a run goes.

    Attributes:
        address: as in :class:`Settings`; None is the connected Ray, or RAY_ADDRESS.
        reason: why, for the first line of the run; empty if the user said it.
    """

    address: str | None
    reason: str = ""


def address_for(settings: Settings) -> Address:
    """Choose where a run goes.

    Ray takes seconds and memory to start. It pays off only if there is more than one encoder: a
    single device is kept busy by the threads of one process.
    """
    if settings.address is not None:
        return Address(settings.address)
    if is_connected() or os.environ.get("RAY_ADDRESS"):
        return Address(None)
    if settings.encoders is not None or settings.encoders_per_gpu > 1:
        return Address(PRIVATE, "on a private Ray, for the number of encoders")
    gpus = gpus_here() if settings.device in (None, "cuda") else 0
    if gpus > 1:
        return Address(PRIVATE, f"on a private Ray, for {gpus} GPUs")
    return Address(WITHOUT_RAY, "one device needs none")


def gpus_here() -> int:
    """Count the GPUs that this process may use, without importing torch."""
    try:
        gpus = len(os.listdir(DRIVER))
    except OSError:
        return 0
    visible = os.environ.get(VISIBLE_GPUS)
    if visible is None:
        return gpus
    return min(gpus, len([name for name in visible.split(",") if name.strip()]))
