"""What a run did, in words."""

from __future__ import annotations

from collections.abc import Sequence

from rayclip.console import shown
from rayclip.report.results import Summary
from rayclip.report.run_stats import BatchStats

BUSY = 0.85  # share of the time above which encoders are the bottleneck of a run
NAMED_FAILURES = 10  # of a run that writes all of them to a file


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
