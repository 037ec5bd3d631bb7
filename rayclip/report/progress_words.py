"""Progress of a run, in words."""

from __future__ import annotations

from typing import NamedTuple

from rayclip.model.load_stage import LoadStage
from rayclip.report.run_stats import RunState


class Goal(NamedTuple):
    """What a run has to do.

    Attributes:
        total: the number of its videos, or of its tar files.
        of_tars: whether these are tar files, of which nobody knows how many videos they have.
    """

    total: int
    of_tars: bool = False

    @property
    def things(self) -> str:
        return "tar files" if self.of_tars else "videos"

    def finished(self, state: RunState) -> int:
        return state.ended_tars if self.of_tars else state.done + state.failed


def progress_line(state: RunState, goal: Goal, seconds: float) -> str:
    """``12/200 videos, 340 frames/s, 4:10 left, 1 failed``, or what is done before any frame."""
    stage = awaited_stage(state)
    if stage is None:
        text = rates(state, goal, seconds)
    else:
        text = f"{stage.text} {megabytes(stage)}".strip()
    return f"{goal.finished(state)}/{goal.total} {goal.things}, {text}"


def rates(state: RunState, goal: Goal, seconds: float) -> str:
    """``340 frames/s, 4:10 left, 1 failed``; before it ``50 videos`` if the goal is tar files."""
    finished = goal.finished(state)
    parts = [count(state.done, "video")] if goal.of_tars else []
    parts.append(f"{state.total.frames / max(seconds, 1e-9):.0f} frames/s")
    if 0 < finished < goal.total:
        parts.append(f"{duration(seconds / finished * (goal.total - finished))} left")
    if state.failed:
        parts.append(f"{state.failed} failed")
    return ", ".join(parts)


def awaited_stage(state: RunState) -> LoadStage | None:
    """Return what the run waits for until its first encoder is up; None from then on."""
    total = state.total
    if state.up or total.frames:
        return None
    return total.loading or LoadStage(
        "Loading the model" if state.placed else "Starting the encoders"
    )


def megabytes(stage: LoadStage) -> str:
    """``120/338 MB``; empty if nothing is transferred."""
    return f"{stage.done / 1e6:.0f}/{stage.total / 1e6:.0f} MB" if stage.total else ""


def duration(seconds: float) -> str:
    """``0:07``, ``4:10`` or ``2:04:10``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def count(number: int, thing: str) -> str:
    """``1 video`` or ``1,200 videos``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
