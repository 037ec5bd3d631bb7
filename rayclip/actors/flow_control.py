"""Back-pressure: how many frames may be with an encoder, however many tasks send to it.

Each reply of an encoder tells the task its window. That costs no extra messages and bounds what is
in flight: a task without a reply may send only a few frames.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_BUDGET = 2 * 2**30  # bytes of frames with one encoder
STORE_SHARE = 0.1  # of its node's object store
MIN_FRAMES = 256  # that may be with an encoder
FIRST_WINDOW = 64  # frames that a task may send before its first reply
ACTIVE_S = 10.0  # a task that has sent nothing for this long has no share


def budget_frames(object_store_bytes: float, n_px: int) -> int:
    """Frames that may be with an encoder.

    Args:
        object_store_bytes: size of its node's object store.
        n_px: side of the uint8 RGB frames.
    """
    size = min(MAX_BUDGET, object_store_bytes * STORE_SHARE)
    return max(MIN_FRAMES, int(size / (3 * n_px * n_px)))


class Quota:
    """An encoder's side: divides its budget among the tasks that send."""

    def __init__(self, frames: int) -> None:
        """Grant this many frames in all."""
        self._budget = frames
        self._last_seen: dict[str, float] = {}

    def window_of(self, task: str, now_s: float) -> int:
        """Note that a task is active, and give its share in frames."""
        self._last_seen[task] = now_s
        self._last_seen = {
            active: seen for active, seen in self._last_seen.items() if now_s - seen < ACTIVE_S
        }
        return max(1, self._budget // len(self._last_seen))


@dataclass
class Outstanding:
    """A task's side: what it has with one encoder.

    Attributes:
        frames: sent and not answered.
        window: the limit that the encoder set last.
    """

    frames: int = 0
    window: int = FIRST_WINDOW

    def allows(self, frames: int) -> bool:
        """Whether this many more may be sent; one chunk always may if nothing is there."""
        return not self.frames or self.frames + frames <= self.window
