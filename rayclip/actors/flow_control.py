"""Back-pressure: how much may be in flight to an encoder, however many tasks send to it.

Each reply of an encoder sets the window of the task. That needs no extra messages and limits what
is in flight: before its first reply, a task may send only a few frames. Everything is counted in
bytes, because frames differ in size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rayclip.actors.messages import Frame

FRAME_BYTES = 3 * 224 * 224  # smaller frames count as this much: each costs time as well
CHUNK_BYTES = 64 * FRAME_BYTES  # of frames that are sent together, 9.6 MB
MAX_BUDGET = 2 * 2**30  # in flight to one encoder
STORE_SHARE = 0.1  # of the object store on the encoder's node
MIN_BUDGET = 4 * CHUNK_BYTES  # in flight to one encoder
FIRST_WINDOW = CHUNK_BYTES  # that a task may send before its first reply
ACTIVE_S = 10.0  # without a request, then a task loses its share


def counted_bytes(frames: Sequence[Frame]) -> int:
    """Return what frames of one size count as, in bytes."""
    return len(frames) * max(frames[0].nbytes, FRAME_BYTES) if frames else 0


def frames_per_chunk(frame_bytes: int) -> int:
    """Return how many frames of this size are sent together: at most 64, and one in any case."""
    return max(1, CHUNK_BYTES // max(frame_bytes, FRAME_BYTES))


def budget_bytes(object_store_bytes: float) -> int:
    """Return how much may be in flight to an encoder, given the object store on its node."""
    return max(MIN_BUDGET, int(min(MAX_BUDGET, object_store_bytes * STORE_SHARE)))


class Quota:
    """The encoder's side: divides its budget among the tasks that send."""

    def __init__(self, budget: int) -> None:
        """Set the budget, in bytes."""
        self._budget = budget
        self._last_request_s: dict[str, float] = {}

    def window_for(self, task: str, now_s: float) -> int:
        """Record that a task is active, and return its share in bytes."""
        self._last_request_s[task] = now_s
        self._last_request_s = {
            active: at_s for active, at_s in self._last_request_s.items() if now_s - at_s < ACTIVE_S
        }
        return max(1, self._budget // len(self._last_request_s))


@dataclass
class Outstanding:
    """The task's side: what one encoder has not answered yet.

    Attributes:
        size: in bytes.
        window: the limit that the encoder set last, in bytes.
    """

    size: int = 0
    window: int = FIRST_WINDOW

    def allows(self, size: int) -> bool:
        """Whether this many more bytes may be sent; one chunk always may if nothing is
        outstanding."""
        return not self.size or self.size + size <= self.window
