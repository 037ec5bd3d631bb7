"""How many frames may be with an encoder: enough to keep it busy, however many tasks there are.

An encoder tells every task with each answer how many frames the task may have with it at a time. So
no extra messages are needed, and what is in flight stays bounded: a task that has no answer yet may
send only a few.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

LARGEST_BUDGET = 2 * 2**30  # bytes of frames with one encoder
STORE_SHARE = 0.1  # of its node's object store
LEAST_FRAMES = 256  # that may be with an encoder
FIRST_FRAMES = 64  # that a task may send before it has an answer
UNKNOWN_RATE = 1000.0  # frames per second of an encoder that has not said it yet
ACTIVE_S = 10.0  # a task that sent nothing for so long does not count


def budget_frames(object_store_bytes: float, n_px: int) -> int:
    """Frames that may be with an encoder.

    Args:
        object_store_bytes: size of its node's object store.
        n_px: side of the uint8 RGB squares.
    """
    size = min(LARGEST_BUDGET, object_store_bytes * STORE_SHARE)
    return max(LEAST_FRAMES, int(size / (3 * n_px * n_px)))


@dataclass(frozen=True)
class Terms:
    """What an encoder tells a task with an answer.

    Attributes:
        waiting: frames with the encoder, of all tasks.
        window: frames that this task may have with it.
        rate: frames per second that it encodes; 0 where it has not begun.
    """

    waiting: int
    window: int
    rate: float = 0.0


class Creditor:
    """An encoder's side: shares its budget among the tasks that send."""

    def __init__(self, frames: int) -> None:
        """Grant so many frames in all."""
        self._budget = frames
        self._lock = threading.Lock()
        self._waiting = 0
        self._last_seen: dict[str, float] = {}

    def arrived(self, task: str, frames: int, now_s: float) -> None:
        """Note that a task sent frames."""
        with self._lock:
            self._last_seen[task] = now_s
            self._waiting += frames

    def answered(self, frames: int, now_s: float, rate: float = 0.0) -> Terms:
        """Note that frames leave, and say what the task that sent them may send."""
        with self._lock:
            self._waiting -= frames
            self._last_seen = {
                task: seen for task, seen in self._last_seen.items() if now_s - seen < ACTIVE_S
            }
            share = self._budget // max(1, len(self._last_seen))
            return Terms(self._waiting, max(1, share), rate)


@dataclass
class Debt:
    """A task's side: what it has with one encoder.

    Attributes:
        frames: that it sent and has no answer for.
        terms: what the encoder said last.
        told_s: when it said so.
    """

    frames: int = 0
    terms: Terms = field(default_factory=lambda: Terms(0, FIRST_FRAMES))
    told_s: float = 0.0

    def allows(self, frames: int) -> bool:
        """Whether so many more may be sent; a task with nothing there may always send a chunk."""
        return not self.frames or self.frames + frames <= self.terms.window

    def load_s(self, now_s: float) -> float:
        """Seconds until the encoder is through with what it has, as far as this task knows: what it
        was told of is done meanwhile, else an encoder that was busy once would be left alone."""
        rate = self.terms.rate or UNKNOWN_RATE
        return max(self.frames / rate, self.terms.waiting / rate - (now_s - self.told_s))
