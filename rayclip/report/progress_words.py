"""Progress of a run, in words."""

from __future__ import annotations

from rayclip.model.load_stage import LoadStage
from rayclip.report.run_stats import RunState


def progress_line(state: RunState, total: int, seconds: float) -> str:
    """``12/200 videos, 340 frames/s, 4:10 left, 1 failed``, or what is done before any frame."""
    stage = awaited_stage(state)
    if stage is None:
        text = rates(state, total, seconds)
    else:
        text = f"{stage.text} {megabytes(stage)}".strip()
    return f"{state.done + state.failed}/{total} videos, {text}"


def rates(state: RunState, total: int, seconds: float) -> str:
    """``340 frames/s, 4:10 left, 1 failed``."""
    finished = state.done + state.failed
    parts = [f"{state.total.frames / max(seconds, 1e-9):.0f} frames/s"]
    if 0 < finished < total:
        parts.append(f"{duration(seconds / finished * (total - finished))} left")
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
