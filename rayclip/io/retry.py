"""Try again what may go well in a moment, for a while."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long something is tried.

    Attributes:
        attempts: the first one included.
        seconds: after which nothing is begun any more, the attempts' own time included.
        first_s: the longest pause after the first attempt; each next one is twice as long.
        max_pause_s: the longest of all pauses.
    """

    attempts: int
    seconds: float
    first_s: float = 0.5
    max_pause_s: float = 10.0

    def pause(self, attempt: int) -> float:
        """Seconds to wait after an attempt, from 1: at random, for many fail at one moment."""
        most = min(self.max_pause_s, self.first_s * 2.0 ** min(attempt - 1, 32))
        return most * random.uniform(0.5, 1.0)


STORAGE = RetryPolicy(attempts=10, seconds=60.0)
"""For one request to a storage: an outage of about 45 s is outlasted."""

RESTART = RetryPolicy(attempts=4, seconds=1800.0, first_s=2.0)
"""For a video that has to be begun anew, since its source cannot go back to where it broke off."""

PROBE = RetryPolicy(attempts=3, seconds=5.0)
"""For finding out, before a run, whether something works at all."""


class RetriesExhausted(Exception):
    """Something was tried long enough; its cause is the last attempt's error."""


def with_retry(
    call: Callable[[], T],
    again: Callable[[Exception], bool],
    patience: RetryPolicy | None = None,
    wait: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Call until it goes well.

    Args:
        call: what to do.
        again: whether an error may pass.
        patience: how often and how long to try; :data:`STORAGE` by default.
        wait: waits for so many seconds; anything true from it ends the patience.
        clock: tells seconds.

    Raises:
        GaveUp: patience is at its end, and the last error might still pass.
        Exception: whatever else ``call`` raises, at once.
    """
    patience = patience or STORAGE
    began = clock()
    attempt = 1
    while True:
        try:
            return call()
        except Exception as error:
            if not again(error):
                raise
            pause = patience.pause(attempt)
            spent = clock() - began
            if attempt == patience.attempts or spent + pause > patience.seconds or wait(pause):
                text = " ".join(str(error).split()) or type(error).__name__
                times = "once" if attempt == 1 else f"{attempt} times"
                raise RetriesExhausted(f"{text} (tried {times} in {spent:.0f} s)") from error
        attempt += 1
