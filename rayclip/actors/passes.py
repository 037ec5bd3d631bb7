"""How many forward passes run at once on a device, of all its models together."""

from __future__ import annotations

from threading import Condition


class Passes:
    """Passes that may begin now, and those that wait for one to end."""

    def __init__(self) -> None:
        """Begin with no pass allowed: a loaded model says how many fit."""
        self._changed = Condition()
        self._limit = self._running = 0
        self._is_reserved = False

    def allow(self, at_once: int) -> None:
        """Let this many passes run at once, if fewer may so far."""
        with self._changed:
            self._limit = max(self._limit, at_once)
            self._changed.notify_all()

    def begin(self, alone: bool) -> None:
        """Wait until a pass may begin.

        Args:
            alone: whether no other pass may run meanwhile.
        """
        with self._changed:
            if alone:
                self._changed.wait_for(lambda: not self._is_reserved)
                self._is_reserved = True  # from now on, no other begins
                self._changed.wait_for(lambda: not self._running)
            else:
                self._changed.wait_for(
                    lambda: not self._is_reserved and self._running < self._limit
                )
            self._running += 1

    def end(self, alone: bool) -> None:
        """Record that a pass has ended."""
        with self._changed:
            self._running -= 1
            if alone:
                self._is_reserved = False
            self._changed.notify_all()
