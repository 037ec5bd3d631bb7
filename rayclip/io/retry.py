"""Retry transient failures for a limited time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """How often and for how long to try.

    Attributes:
        attempts: maximum number, including the first.
        seconds: no attempt starts later than this; includes the time that attempts take.
        first_pause_s: longest pause after the first attempt; doubles after each attempt.
        max_pause_s: upper limit of a pause.
    """

    attempts: int
    seconds: float
    first_pause_s: float = 0.5
    max_pause_s: float = 10.0

    def pause(self, attempt: int) -> float:
        """Seconds to wait after this attempt (from 1), with jitter since many fail together."""
        longest = min(self.max_pause_s, self.first_pause_s * 2.0 ** min(attempt - 1, 32))
        return longest * random.uniform(0.5, 1.0)


STORAGE = RetryPolicy(attempts=10, seconds=60.0)
"""For one request to a storage: survives an outage of about 45 s."""

RESTART = RetryPolicy(attempts=4, seconds=1800.0, first_pause_s=2.0)
"""For work that starts again from the beginning: a video whose source cannot seek, a download."""

PROBE = RetryPolicy(attempts=3, seconds=5.0)
"""For preflight checks."""


class RetriesExhausted(Exception):
    """All attempts failed; ``__cause__`` is the last attempt's error."""


def with_retry(
    call: Callable[[], T],
    should_retry: Callable[[Exception], bool],
    policy: RetryPolicy | None = None,
    wait: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Call until it succeeds.

    Args:
        call: what to do.
        should_retry: whether an error is transient.
        policy: :data:`STORAGE` by default.
        wait: waits for this many seconds; a true result stops retrying.
        clock: the current time in seconds.

    Raises:
        RetriesExhausted: the policy allows no further attempt.
        Exception: any error that is not transient, at once.
    """
    policy = policy or STORAGE
    started = clock()
    attempt = 1
    while True:
        try:
            return call()
        except Exception as error:
            if not should_retry(error):
                raise
            pause = policy.pause(attempt)
            spent = clock() - started
            if attempt == policy.attempts or spent + pause > policy.seconds or wait(pause):
                text = " ".join(str(error).split()) or type(error).__name__
                times = "once" if attempt == 1 else f"{attempt} times"
                raise RetriesExhausted(f"{text} (tried {times} in {spent:.0f} s)") from error
        attempt += 1
