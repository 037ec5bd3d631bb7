"""Undo the side effects of the encoder SVT-AV1 on its process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def contain_svt_av1() -> Iterator[None]:
    """Make SVT-AV1 log only errors in this block, and reset the priority afterwards."""
    os.environ.setdefault("SVT_LOG", "1")
    try:
        yield
    finally:
        reset_priority()


def reset_priority() -> None:
    """Reset the real-time priority that SVT-AV1 sets for a process of root.

    Its children would inherit that priority, and torch's threads would starve other processes.
    """
    if hasattr(os, "sched_setscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
