"""What a person sees of a run: on a terminal, a live region below the lines; elsewhere, lines."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from rayclip.console import can_redraw, folded, say_to_user
from rayclip.model.load_stage import LoadStage, current_stage
from rayclip.report.progress_words import Goal
from rayclip.report.run_stats import RunState

if TYPE_CHECKING:
    from rich.console import RenderableType

    from rayclip.report.live_region import LiveRegion


PLAIN_PERIOD_S = 10.0  # between lines, if there is no live region


class Display:
    """Shows a run on standard error.

    A terminal has a live region: what is awaited, or a progress bar. Other streams, dumb terminals
    and notebooks only get lines.

    Attributes:
        is_live: whether there is a live region.
    """

    def __init__(self, stream: TextIO | None = None, show: bool = True) -> None:
        """Prepare; nothing is shown before the ``with`` block begins.

        Args:
            stream: where to write; standard error by default.
            show: whether to show anything but what :meth:`say` must say.
        """
        self._stream = stream or sys.stderr
        self._show = show
        self.is_live = show and can_redraw(self._stream)
        self._region: LiveRegion | None = None
        self._phase, self._phase_began = LoadStage(""), 0.0
        self._overdue = threading.Timer(PLAIN_PERIOD_S, self.say)

    def __enter__(self) -> Display:
        self.phase("Starting")
        if self.is_live:
            with suppress(OSError):
                self._stream.write("  Starting 0 s\r")  # the import of rich takes a moment
                self._stream.flush()
            from rayclip.report.live_region import LiveRegion

            self._region = LiveRegion(self._stream)
            self._region.view = self._phase_view
            self._region.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.phase("")
        if self._region is not None:
            self._region.stop()
            self._region = None

    def say(self, text: str, always: bool = False) -> None:
        """Write lines that stay.

        Args:
            text: the lines; if it is empty, none is written.
            always: write them even if nothing is to be shown.
        """
        if not text or not (self._show or always):
            return
        if self._region is None:
            say_to_user(text, self._stream)
        else:
            self._region.print_above(folded(text, self._stream))

    def phase(self, awaited: str | LoadStage) -> None:
        """Show what is awaited from now on. Without a live region, it is a line if it takes long.

        Args:
            awaited: what; empty if nothing is.
        """
        stage = awaited if isinstance(awaited, LoadStage) else LoadStage(awaited)
        before, self._phase = self._phase, stage
        if self._region is not None:
            self._region.view = self._phase_view
        if self._phase.text == before.text:
            return
        self._phase_began = time.monotonic()
        self._overdue.cancel()
        self._overdue = threading.Timer(PLAIN_PERIOD_S, self.say, [f"{self._phase.text} ..."])
        if self._show and not self.is_live and self._phase.text:
            self._overdue.daemon = True
            self._overdue.start()

    def progress(self, state: RunState, goal: Goal, seconds: float, stall: str = "") -> None:
        """Show progress in the live region.

        Args:
            state: how far the run is.
            goal: what the run has to do.
            seconds: since it began.
            stall: what it waits for, if nothing moves.
        """
        if self._region is not None:
            self._region.show_progress(state, goal, seconds, stall)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Remove the live region during the block, which writes to the terminal itself."""
        with ExitStack() as stack:
            if self._region is not None:
                self._region.stop()
                stack.callback(self._region.start)
            yield

    def _phase_view(self) -> RenderableType:
        assert self._region is not None
        if not self._phase.text:
            return ""
        stage = current_stage() or self._phase
        return self._region.awaited(stage, time.monotonic() - self._phase_began)
