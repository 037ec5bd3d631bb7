"""What SVT-AV1, an encoder, does to the process that it is used in, and how to undo it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def tamed() -> Iterator[None]:
    """Let SVT-AV1 say only errors in this block, and leave no real-time priority behind."""
    os.environ.setdefault("SVT_LOG", "1")
    try:
        yield
    finally:
        usual_priority()


def usual_priority() -> None:
    """Take back the real-time priority that SVT-AV1 gives a process of root's, and which all that
    it starts would inherit: torch's threads then starve others and one another."""
    if hasattr(os, "sched_setscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
