"""The summary of a run: as sentences for a person, as lines for a log."""

from __future__ import annotations

from collections.abc import Sequence

from rayclip.console import shown
from rayclip.report.progress_words import count, duration
from rayclip.report.results import Failure, Summary
from rayclip.report.run_stats import BatchStats

BUSY = 0.85  # encoders that are busy for this share of the time are the bottleneck
MAX_NAMED_FAILURES = 10  # if failures.jsonl has them all


def encoder_lines(work: Sequence[BatchStats], each: bool) -> list[str]:
    """How busy the encoders were, and whether decoding or encoding was the bottleneck.

    Args:
        work: the statistics of each encoder.
        each: add a line for each encoder.
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
    step, more = _bottleneck(total)
    lines.append(
        f"encoders: mean batch fill {total.fill:.2f}, busy {total.busy:.0%} of the time; "
        f"bottleneck: {step}: add {more}"
    )
    return lines


def summary_lines(summary: Summary) -> list[str]:
    """The summary as lines of a log; the failures come last."""
    videos = [f"{summary.done} done"]
    if summary.skipped:
        videos.append(f"{summary.skipped} done before")
    if summary.failed:
        videos.append(f"{_failed_videos(summary)} failed")
    if summary.failed_before:
        videos.append(f"{summary.failed_before} failed before, in finished tar files")
    lines = [
        f"videos: {', '.join(videos)}; {summary.frames} frames in {summary.seconds:.1f} s "
        f"({_frames_per_s(summary):.0f} frames/s)"
    ]
    if summary.output_path is not None:
        lines.append(f"features: {summary.output_path}")
    if summary.estimate is not None:
        lines.append(
            f"all {summary.estimate.videos:,} videos would take about "
            f"{approximate_duration(summary.estimate.seconds)} at this rate"
        )
    if summary.failed:
        lines += ["failed:", *_failure_lines(summary)]
    return lines


def summary_sentences(summary: Summary, work: BatchStats) -> list[str]:
    """The summary as sentences; the failures come last.

    Args:
        summary: what the run did.
        work: of all its encoders; empty if their share of the time says nothing.
    """
    took = f"{summary.seconds:.1f} s" if summary.seconds < 60 else duration(summary.seconds)
    sentences = [
        f"Extracted {count(summary.frames, 'frame')} of {count(summary.done, 'video')} in "
        f"{took} ({_frames_per_s(summary):,.0f} frames/s)."
    ]
    if summary.skipped:
        was = "was" if summary.skipped == 1 else "were"
        sentences.append(f"{count(summary.skipped, 'video')} {was} done before.")
    if summary.failed_before:
        sentences.append(
            f"{count(summary.failed_before, 'video')} of finished tar files failed before; "
            "--overwrite tries again."
        )
    lines = [" ".join(sentences)]
    if summary.output_path is not None:
        lines.append(f"The features are in {summary.output_path}")
    if summary.estimate is not None:
        lines.append(
            f"All {summary.estimate.videos:,} videos would take about "
            f"{approximate_duration(summary.estimate.seconds)} at this rate."
        )
    if work.frames:
        step, more = _bottleneck(work)
        lines.append(
            f"The bottleneck was {step}: more {more} would make it faster (encoders were busy "
            f"{work.busy:.0%} of the time)."
        )
    if summary.failed:
        retry = "" if summary.output_path is None else "; the same command tries again"
        lines.append(f"{count(_failed_videos(summary), 'video')} failed{retry}:")
        lines += _failure_lines(summary)
    return lines


def _failed_videos(summary: Summary) -> int:
    """How many videos failed; several models may have failed on one."""
    failed = summary.failed
    by_model = any(failure.model for failure in failed)
    return len({failure.video for failure in failed}) if by_model else len(failed)


def _frames_per_s(summary: Summary) -> float:
    return summary.frames / summary.seconds if summary.seconds else 0.0


def _bottleneck(work: BatchStats) -> tuple[str, str]:
    """The step that limits a run, and what it needs more of."""
    return ("encoding", "GPUs") if work.busy >= BUSY else ("decoding", "CPUs")


def _failure_lines(summary: Summary) -> list[str]:
    named = len(summary.failed) if summary.output_path is None else MAX_NAMED_FAILURES
    lines = [
        f"  {shown(failure.video)}{_with(failure)}: {shown(str(failure))}"
        for failure in summary.failed[:named]
    ]
    if len(summary.failed) > named:
        lines.append(f"  and {len(summary.failed) - named} more, in failures.jsonl")
    return lines


def _with(failure: Failure) -> str:
    return f" with {failure.model}" if failure.model else ""


def approximate_duration(seconds: float) -> str:
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
