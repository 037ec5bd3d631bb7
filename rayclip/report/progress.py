"""Progress of a run, written to standard error."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TextIO

from rayclip.report.run_stats import RunState

TERMINAL_PERIOD_S = 0.5
PLAIN_PERIOD_S = 10.0
JOIN_TIMEOUT_S = 15.0  # longer than a poll: asking Ray after its shutdown ends the process
SILENCE_S = 30.0  # without progress, before a line says what the run waits for


class Progress:
    """Shows the progress of a run: a live line on a terminal, plain lines now and then elsewhere.

    If nothing moves for :data:`SILENCE_S`, the line says what the run waits for.
    """

    def __init__(
        self,
        total: int,
        poll: Callable[[], RunState | None],
        stall_reason: Callable[[], str],
        stream: TextIO | None = None,
        show: bool = True,
    ) -> None:
        """Prepare; nothing is shown before the ``with`` block begins.

        Args:
            total: number of videos in the run.
            poll: returns the state of the run, or None if it is currently unknown.
            stall_reason: returns what the run waits for if nothing moves.
            stream: where to write; standard error by default.
            show: whether to show progress. Otherwise only stalls are reported.
        """
        self._total = total
        self._poll = poll
        self._stall_reason = stall_reason
        self._stream = stream or sys.stderr
        self._show = show
        self._live = show and self._stream is not None and self._stream.isatty()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._started = self._moved = time.monotonic()
        self._counts = (0, 0, 0)
        self._shown_notes: set[str] = set()

    def __enter__(self) -> Progress:
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
            self._write_notes(self._poll())
        if self._live:
            self._write("\r\x1b[K")

    def _run(self) -> None:
        while not self._ended.wait(TERMINAL_PERIOD_S if self._live else PLAIN_PERIOD_S):
            state = self._poll()
            if state is None or self._ended.is_set():
                continue
            self._write_notes(state)
            now = time.monotonic()
            line = progress_line(state, self._total, now - self._started)
            counts = state.done, state.failed, state.total.frames
            if counts != self._counts:
                self._counts, self._moved = counts, now
            is_stalled = now - self._moved >= SILENCE_S
            if is_stalled and not self._ended.is_set():
                line += f"; no progress for {duration(now - self._moved)}: {self._stall_reason()}"
            if is_stalled or self._show:
                self._write(f"\r\x1b[K{line}" if self._live else f"{line}\n")

    def _write_notes(self, state: RunState | None) -> None:
        """Write each new note as a line."""
        for note in state.total.notes if state and self._show else ():
            if note not in self._shown_notes:
                self._shown_notes.add(note)
                self._write(f"\r\x1b[K{note}\n" if self._live else f"{note}\n")

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError, AttributeError):  # a run outlives its terminal
            self._stream.write(text)
            self._stream.flush()


def progress_line(state: RunState, total: int, seconds: float) -> str:
    """``12/200 videos, 340 frames/s, 4:10 left, 1 failed``."""
    finished = state.done + state.failed
    rate = state.total.frames / max(seconds, 1e-9)
    parts = [f"{finished}/{total} videos", f"{rate:.0f} frames/s"]
    if 0 < finished < total:
        parts.append(f"{duration(seconds / finished * (total - finished))} left")
    if state.failed:
        parts.append(f"{state.failed} failed")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """``0:07``, ``4:10`` or ``2:04:10``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
