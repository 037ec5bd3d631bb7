"""The live region of a terminal: what is awaited, or a progress bar, drawn by rich."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TextIO, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Column, Table
from rich.text import Text

from rayclip.console import terminal_width
from rayclip.model.load_stage import LoadStage
from rayclip.report.progress_words import Goal, awaited_stage, megabytes, rates
from rayclip.report.run_stats import RunState

REFRESHES_PER_S = 4
MAX_WIDTH = 80  # of bars and what is beside them


class LiveRegion:
    """The last lines of a terminal, which are replaced as things change.

    What is printed to ``sys.stderr`` meanwhile appears above it.

    Attributes:
        view: returns what it shows, at each refresh.
    """

    def __init__(self, stream: TextIO) -> None:
        """Prepare to show it on a terminal; nothing is shown before :meth:`start`."""
        self.view: Callable[[], RenderableType] = Text
        self._stream = stream
        lasting = cast(TextIO, _Lasting(stream))
        self._console = _Console(file=lasting, force_jupyter=False)
        self._spinner = Spinner("line" if self._console.options.ascii_only else "dots")
        self._live: Live | None = None

    def start(self) -> None:
        # A Live that was stopped would erase what was printed since.
        self._live = Live(
            console=self._console,
            get_renderable=self._content,
            refresh_per_second=REFRESHES_PER_S,
            transient=True,
            redirect_stdout=False,
        )
        self._live.start(refresh=True)

    def stop(self) -> None:
        """Erase it."""
        if self._live is not None:
            self._live.stop()

    def print_above(self, text: str) -> None:
        """Print lines as they are, above the region."""
        self._console.print(Text(text), soft_wrap=True)

    def show_progress(self, state: RunState, goal: Goal, seconds: float, stall: str) -> None:
        """Show the progress of a run; the arguments are as for the display."""
        self.view = partial(self._progress, state, goal, seconds, stall, time.monotonic())

    def awaited(self, stage: LoadStage, seconds: float) -> RenderableType:
        """What has been awaited for some seconds, with a bar if bytes are transferred."""
        frame: Any = self._spinner.render(time.monotonic())
        line = Text.assemble(frame, f" {stage.text} ", (f"{seconds:.0f} s", "dim"))
        if not stage.total:
            return line
        return Group(line, self._bar(stage.done, stage.total, megabytes(stage)))

    def _content(self) -> RenderableType:
        self._console.width = terminal_width(self._stream)  # rich would ask standard input
        return self.view()

    def _progress(
        self, state: RunState, goal: Goal, seconds: float, stall: str, seen: float
    ) -> RenderableType:
        finished = goal.finished(state)
        label = f"{finished:,}/{goal.total:,} {goal.things}"
        lines = [self._bar(finished, goal.total, label)]
        stage = awaited_stage(state)
        if stage is not None:
            lines.append(self.awaited(stage, seconds + time.monotonic() - seen))
        else:
            text = Text(f"{state.total.frames:,} frames, {rates(state, goal, seconds)}")
            text.highlight_regex(r"\d+ failed", "red")
            lines.append(text)
        if stall:
            lines.append(Text(stall, "yellow"))
        return Group(*lines)

    def _bar(self, done: int, total: int, label: str) -> RenderableType:
        """A bar, with the share and a label beside it."""
        grid = Table.grid(Column(ratio=1), "", "", padding=(0, 1))
        grid.width = min(self._console.width, MAX_WIDTH)
        grid.add_row(ProgressBar(total, done), f"{done / total:4.0%}", label)
        return grid


class _Console(Console):
    """A console that leaves the cursor alone: if the process is killed, nobody could show it."""

    def show_cursor(self, show: bool = True) -> bool:
        return False


class _Lasting:
    """A stream without errors: a run outlives its terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
