"""A circuit breaker: stops a run if so many videos fail that the videos cannot be the cause."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping

from rayclip.errors import RunStopped
from rayclip.report.results import VideoResult

WINDOW = 200  # videos; a smaller run is never stopped


class CircuitBreaker:
    """Counts the failures among the latest results of a run, by code."""

    def __init__(self, failed_before: Mapping[str, str]) -> None:
        """Start with no results.

        Args:
            failed_before: videos that failed in earlier runs, and their codes. The same failure
                again is ignored. Otherwise a run that retries a few hundred bad videos would be
                stopped before it could report them all.
        """
        self._failed_before = failed_before
        self._latest: deque[str | None] = deque()
        self._failures: Counter[str] = Counter()

    def add(self, result: VideoResult) -> None:
        """Count one more result.

        Raises:
            RunStopped: more than half of the last :data:`WINDOW` videos failed with the same code.
        """
        failure = result.failure
        code = failure.code if failure else None
        if failure and self._failed_before.get(failure.video) == code:
            return
        self._latest.append(code)
        if code is not None:
            self._failures[code] += 1
        if len(self._latest) > WINDOW:
            oldest = self._latest.popleft()
            if oldest is not None:
                self._failures[oldest] -= 1
        same_code = self._failures[code] if code is not None else 0
        if failure and len(self._latest) == WINDOW and same_code > WINDOW // 2:
            raise RunStopped(
                f"{same_code} of the last {WINDOW} videos failed with {code}. The last one, "
                f"{failure.video}: {failure}. Fix the common cause, then rerun the same command; "
                "finished videos are kept."
            )
