"""Back-pressure: how many frames may be in flight to an encoder, however many tasks send to it.

Each reply of an encoder sets the window of the task. That needs no extra messages and limits what
is in flight: before its first reply, a task may send only a few frames.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_BUDGET = 2 * 2**30  # bytes of frames in flight to one encoder
STORE_SHARE = 0.1  # of the object store on the encoder's node
MIN_FRAMES = 256  # in flight to one encoder
FIRST_WINDOW = 64  # frames that a task may send before its first reply
ACTIVE_S = 10.0  # without a request, then a task loses its share


def budget_frames(object_store_bytes: float, n_px: int) -> int:
    """Return how many frames may be in flight to an encoder.

    Args:
        object_store_bytes: size of the object store on its node.
        n_px: side of the uint8 RGB frames.
    """
    size = min(MAX_BUDGET, object_store_bytes * STORE_SHARE)
    return max(MIN_FRAMES, int(size / (3 * n_px * n_px)))


class Quota:
    """The encoder's side: divides its budget among the tasks that send."""

    def __init__(self, frames: int) -> None:
        """Set the budget, in frames."""
        self._budget = frames
        self._last_request_s: dict[str, float] = {}

    def window_for(self, task: str, now_s: float) -> int:
        """Record that a task is active, and return its share in frames."""
        self._last_request_s[task] = now_s
        self._last_request_s = {
            active: at_s for active, at_s in self._last_request_s.items() if now_s - at_s < ACTIVE_S
        }
        return max(1, self._budget // len(self._last_request_s))


@dataclass
class Outstanding:
    """The task's side: frames that one encoder has not answered yet.

    Attributes:
        frames: their number.
        window: the limit that the encoder set last.
    """

    frames: int = 0
    window: int = FIRST_WINDOW

    def allows(self, frames: int) -> bool:
        """Whether this many more may be sent; one chunk always may if nothing is outstanding."""
        return not self.frames or self.frames + frames <= self.window
