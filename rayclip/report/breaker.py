"""End a run in which nearly everything fails: the videos are not what is wrong."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping

from rayclip.errors import RunStopped
from rayclip.report.results import VideoResult

WINDOW = 200  # videos; a smaller run comes to its own end


class CircuitBreaker:
    """Looks at the results of a run as they come."""

    def __init__(self, known: Mapping[str, str]) -> None:
        """Nothing has failed yet.

        Args:
            known: videos that failed in earlier runs, and their codes. That they fail alike again
                tells nothing: else a run that only repeats a few hundred bad videos would never end
                with their report.
        """
        self._known = known
        self._last: deque[str | None] = deque()
        self._failures: Counter[str] = Counter()

    def add(self, result: VideoResult) -> None:
        """Count one more video.

        Raises:
            RunStopped: over half of the last :data:`WINDOW` failed with one code.
        """
        failure = result.failure
        code = failure.code if failure else None
        if failure and self._known.get(failure.video) == code:
            return
        self._last.append(code)
        if code is not None:
            self._failures[code] += 1
        if len(self._last) > WINDOW:
            oldest = self._last.popleft()
            if oldest is not None:
                self._failures[oldest] -= 1
        alike = self._failures[code] if code is not None else 0
        if failure and len(self._last) == WINDOW and alike > WINDOW // 2:
            raise RunStopped(
                f"{alike} of the last {WINDOW} videos failed with {code}. The last one, "
                f"{failure.video}: {failure}. Fix the common cause, then rerun the same command; "
                "what is done is kept."
            )
