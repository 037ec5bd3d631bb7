"""Progress of a run, as the display shows it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from rayclip.report.display import PLAIN_PERIOD_S, Display
from rayclip.report.progress_words import Goal, duration, progress_line
from rayclip.report.run_stats import RunState

TERMINAL_PERIOD_S = 0.5
JOIN_TIMEOUT_S = 15.0  # longer than a poll: asking Ray after its shutdown ends the process
SILENCE_S = 30.0  # without progress, before a line says what the run waits for


class Progress:
    """Shows the progress of a run: a bar on a terminal, plain lines now and then elsewhere.

    If nothing moves for :data:`SILENCE_S`, it says what the run waits for, even if nothing else is
    to be shown.
    """

    def __init__(
        self,
        goal: Goal,
        poll: Callable[[], RunState | None],
        stall_reason: Callable[[], str],
        display: Display,
    ) -> None:
        """Prepare; nothing is shown before the ``with`` block begins.

        Args:
            goal: what the run has to do.
            poll: returns the state of the run, or None if it is currently unknown.
            stall_reason: returns what the run waits for if nothing moves.
            display: shows it.
        """
        self._goal = goal
        self._poll = poll
        self._stall_reason = stall_reason
        self._display = display
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._started = self._moved = time.monotonic()
        self._counts = (0, 0, 0)
        self._shown_notes: set[str] = set()

    def __enter__(self) -> Progress:
        if not self._display.is_live:  # otherwise the phase stays in sight until the first poll
            self._display.phase("")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join(timeout=JOIN_TIMEOUT_S)
        if kind is None:
            self._say_notes(self._poll())
        self._display.phase("Ending the run")

    def _run(self) -> None:
        period_s = TERMINAL_PERIOD_S if self._display.is_live else PLAIN_PERIOD_S
        while not self._ended.wait(period_s):
            state = self._poll()
            if state is None or self._ended.is_set():
                continue
            self._say_notes(state)
            now = time.monotonic()
            counts = state.done, state.failed, state.total.frames
            if counts != self._counts:
                self._counts, self._moved = counts, now
            stall = ""
            if now - self._moved >= SILENCE_S:
                stall = f"no progress for {duration(now - self._moved)}: {self._stall_reason()}"
            if self._display.is_live:
                self._display.progress(state, self._goal, now - self._started, stall)
            else:
                line = progress_line(state, self._goal, now - self._started)
                self._display.say(f"{line}; {stall}" if stall else line, always=bool(stall))

    def _say_notes(self, state: RunState | None) -> None:
        """Write each new note as a line."""
        for note in state.total.notes if state else ():
            if note not in self._shown_notes:
                self._shown_notes.add(note)
                self._display.say(note)
