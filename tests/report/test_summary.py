"""The summary at the end of a run."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rayclip.report.results import Estimate, Failure, Summary
from rayclip.report.run_stats import BatchStats
from rayclip.report.summary import encoder_lines, summary_lines, summary_sentences


def test_each_encoder_has_one_line() -> None:
    work = [BatchStats(4, 50, 64, 3, 1.26, 2.52), BatchStats()]
    assert encoder_lines(work, each=True) == [
        "encoder 0: 50 frames in 4 batches, mean batch fill 0.78, 3 of them shared by several "
        "chunks, busy 1.3 s",
        "encoder 1: 0 frames in 0 batches, mean batch fill 0.00, 0 of them shared by several "
        "chunks, busy 0.0 s",
        "encoders: mean batch fill 0.78, busy 50% of the time; bottleneck: decoding: add CPUs",
    ]
    assert len(encoder_lines(work, each=False)) == 1


def test_encoders_that_are_almost_always_busy_are_the_bottleneck() -> None:
    (line,) = encoder_lines([BatchStats(1, 8, 8, 0, busy_s=9.5, room_s=10.0)], each=False)
    assert line.endswith("busy 95% of the time; bottleneck: encoding: add GPUs")


def test_a_run_that_encoded_nothing_has_no_bottleneck() -> None:
    assert encoder_lines([BatchStats()], each=False) == []


def failures(count: int) -> tuple[Failure, ...]:
    return tuple(
        Failure(f"{number}.mp4", "open", "not_found", "there is no such file", 1)
        for number in range(count)
    )


@pytest.mark.parametrize(
    ("summary", "lines"),
    [
        (Summary(), ["videos: 0 done; 0 frames in 0.0 s (0 frames/s)"]),
        (
            Summary(done=3, frames=90, seconds=4.5, output_path="out/clip/demo"),
            ["videos: 3 done; 90 frames in 4.5 s (20 frames/s)", "features: out/clip/demo"],
        ),
        (
            Summary(skipped=5, seconds=0.1),
            ["videos: 0 done, 5 done before; 0 frames in 0.1 s (0 frames/s)"],
        ),
        (
            Summary(done=1, failed=failures(2), frames=10, seconds=1.0),
            [
                "videos: 1 done, 2 failed; 10 frames in 1.0 s (10 frames/s)",
                "failed:",
                "  0.mp4: open/not_found: there is no such file",
                "  1.mp4: open/not_found: there is no such file",
            ],
        ),
    ],
    ids=["nothing", "done", "skipped", "failed"],
)
def test_the_summary_counts_done_skipped_and_failed_videos(
    summary: Summary, lines: Sequence[str]
) -> None:
    assert summary_lines(summary) == lines


@pytest.mark.parametrize(
    ("summary", "busy", "lines"),
    [
        (Summary(), 0.0, ["Extracted 0 frames of 0 videos in 0.0 s (0 frames/s)."]),
        (
            Summary(done=1, skipped=1, frames=1, seconds=90.0, output_path="out/clip/demo"),
            0.9,
            [
                "Extracted 1 frame of 1 video in 1:30 (0 frames/s). 1 video was done before.",
                "The features are in out/clip/demo",
                "The bottleneck was encoding: more GPUs would make it faster "
                "(encoders were busy 90% of the time).",
            ],
        ),
        (
            Summary(2000, 5, failures(1), 71_040, 52.0, "out", Estimate(9000, 240)),
            0.1,
            [
                "Extracted 71,040 frames of 2,000 videos in 52.0 s (1,366 frames/s). "
                "5 videos were done before.",
                "The features are in out",
                "All 9,000 videos would take about 4 min at this rate.",
                "The bottleneck was decoding: more CPUs would make it faster "
                "(encoders were busy 10% of the time).",
                "1 video failed; the same command tries again:",
                "  0.mp4: open/not_found: there is no such file",
            ],
        ),
    ],
    ids=["nothing", "one video", "many videos"],
)
def test_a_person_reads_sentences(summary: Summary, busy: float, lines: Sequence[str]) -> None:
    work = BatchStats(frames=summary.frames, busy_s=busy, room_s=1.0)
    assert summary_sentences(summary, work) == lines


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (59, "59 s"),
        (60, "1 min"),
        (59 * 60, "59 min"),
        (3600, "1 h 0 min"),
        (12_000, "3 h 20 min"),
        (48 * 3600, "2 days 0 h"),
        (500_000, "5 days 19 h"),
    ],
)
def test_a_limited_run_estimates_the_time_for_all_videos(seconds: float, words: str) -> None:
    lines = summary_lines(Summary(done=1, estimate=Estimate(1_000_000, seconds)))
    assert lines[-1] == f"all 1,000,000 videos would take about {words} at this rate"


def test_ten_failures_are_named_if_a_file_has_them_all() -> None:
    lines = summary_lines(Summary(failed=failures(13), output_path="out"))
    assert len([line for line in lines if "not_found" in line]) == 10
    assert lines[-1] == "  and 3 more, in failures.jsonl"


def test_all_failures_are_named_if_no_file_has_them() -> None:
    lines = summary_lines(Summary(failed=failures(13)))
    assert len([line for line in lines if "not_found" in line]) == 13


def test_a_name_cannot_inject_lines() -> None:
    hostile = Failure("a\nvideos: 9 done\x1b[2J.mp4", "open", "not_found", "no\nfile", 1)
    lines = summary_lines(Summary(failed=(hostile,)))
    assert lines[-1] == r"  'a\nvideos: 9 done\x1b[2J.mp4': 'open/not_found: no\nfile'"
