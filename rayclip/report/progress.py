"""What a person sees while a run goes on, on standard error."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TextIO

from rayclip.messages import shown
from rayclip.report.batch_stats import BatchStats
from rayclip.report.results import Summary

TERMINAL_PERIOD_S = 0.5
PLAIN_PERIOD_S = 10.0
LAST_LOOK_S = 15.0  # more than a look takes: who asks Ray after it is shut down ends the process
SILENCE_S = 30.0  # after which a line says what is awaited
BUSY = 0.85  # share of the time from which on encoders are what a run waits for
NAMED_FAILURES = 10  # at the end of a run that writes all of them to a file


@dataclass(frozen=True)
class Counts:
    """How far a run is.

    Attributes:
        done: videos.
        failed: videos.
        frames: features of the videos that are done.
        encoded: frames, those of unfinished videos included.
        notes: what the user should know, a line each.
    """

    done: int = 0
    failed: int = 0
    frames: int = 0
    encoded: int = 0
    notes: tuple[str, ...] = ()


class Progress:
    """A live line on a terminal; plain lines every so often elsewhere; or only lines that say what
    is awaited."""

    def __init__(
        self,
        total: int,
        poll: Callable[[], Counts | None],
        awaited: Callable[[], str],
        stream: TextIO | None = None,
        show: bool = True,
    ) -> None:
        """Nothing is shown before the ``with`` block begins.

        Args:
            total: videos of the run.
            poll: asks how far it is; None where that is not known just now.
            awaited: says what the run waits for, when nothing moves.
            stream: where to write; standard error by default.
            show: tell how far the run is, too, and not only what it waits for.
        """
        self._total = total
        self._poll = poll
        self._awaited = awaited
        self._stream = stream or sys.stderr
        self._show = show
        self._live = show and self._stream is not None and self._stream.isatty()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._started = self._moved = time.monotonic()
        self._seen = Counts()
        self._noted: set[str] = set()

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
        self._thread.join(timeout=LAST_LOOK_S)
        if kind is None:
            self._tell(self._poll())
        if self._live:
            self._write("\r\x1b[K")

    def _run(self) -> None:
        while not self._ended.wait(TERMINAL_PERIOD_S if self._live else PLAIN_PERIOD_S):
            counts = self._poll()
            if counts is None or self._ended.is_set():
                continue
            self._tell(counts)
            now = time.monotonic()
            line = progress_line(counts, self._total, now - self._started)
            if counts != self._seen:
                self._seen, self._moved = counts, now
            is_silent = now - self._moved >= SILENCE_S
            if is_silent and not self._ended.is_set():
                line += f"; nothing for {duration(now - self._moved)}: {self._awaited()}"
            if is_silent or self._show:
                self._write(f"\r\x1b[K{line}" if self._live else f"{line}\n")

    def _tell(self, counts: Counts | None) -> None:
        """Write the notes that were not written yet, a line each."""
        for note in counts.notes if counts and self._show else ():
            if note not in self._noted:
                self._noted.add(note)
                self._write(f"\r\x1b[K{note}\n" if self._live else f"{note}\n")

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError, AttributeError):  # a run outlives its terminal
            self._stream.write(text)
            self._stream.flush()


def progress_line(counts: Counts, total: int, seconds: float) -> str:
    """``12/200 videos, 340 frames/s, 4:10 left, 1 failed``."""
    finished = counts.done + counts.failed
    parts = [f"{finished}/{total} videos", f"{counts.encoded / max(seconds, 1e-9):.0f} frames/s"]
    if 0 < finished < total:
        parts.append(f"{duration(seconds / finished * (total - finished))} left")
    if counts.failed:
        parts.append(f"{counts.failed} failed")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """``0:07``, ``4:10`` or ``2:04:10``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def about(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3 h 20 min`` or ``5 days 3 h``."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} days {hours % 24} h"


def encoder_lines(work: Sequence[BatchStats], each: bool) -> list[str]:
    """How full the encoders were, and which side of a run would gain from more machines.

    Args:
        work: what each encoder did; its ``fill`` does not count padding.
        each: a line for each encoder, too.
    """
    total = sum(work, BatchStats())
    lines = [
        f"encoder {number}{stats.host and f' on {stats.host}'}: {stats.frames} frames in "
        f"{stats.batches} batches, mean batch fill {stats.fill:.2f}, {stats.mixed} of them shared "
        f"by several chunks, busy {stats.busy_s:.1f} s"
        for number, stats in enumerate(work if each else ())
    ]
    if not total.frames:
        return lines
    side = "encoding: add GPUs" if total.busy >= BUSY else "decoding: add CPUs"
    lines.append(
        f"encoders: mean batch fill {total.fill:.2f}, busy {total.busy:.0%} of the time; "
        f"bottleneck: {side}"
    )
    return lines


def summary_lines(summary: Summary) -> list[str]:
    """What a run did, in words: the failures by reason come last."""
    rate = summary.frames / summary.seconds if summary.seconds else 0.0
    videos = [f"{summary.done} done"]
    if summary.skipped:
        videos.append(f"{summary.skipped} done before")
    if summary.failed:
        videos.append(f"{len(summary.failed)} failed")
    lines = [
        f"videos: {', '.join(videos)}; {summary.frames} frames in {summary.seconds:.1f} s "
        f"({rate:.0f} frames/s)"
    ]
    if summary.output_path is not None:
        lines.append(f"features: {summary.output_path}")
    if summary.estimate is not None:
        lines.append(
            f"all {summary.estimate.videos:,} videos would take about "
            f"{about(summary.estimate.seconds)} at this rate"
        )
    if summary.failed:
        lines.append("failed:")
        named = len(summary.failed) if summary.output_path is None else NAMED_FAILURES
        lines += [
            f"  {shown(failure.video)}: {shown(str(failure))}" for failure in summary.failed[:named]
        ]
        if len(summary.failed) > named:
            lines.append(f"  and {len(summary.failed) - named} more, in failures.jsonl")
    return lines
