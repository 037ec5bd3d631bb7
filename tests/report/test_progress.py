"""What a person sees while a run goes on, and at its end."""

import errno
import io
import threading
from collections.abc import Sequence

import pytest

from rayclip.report.batch_stats import BatchStats
from rayclip.report.progress import (
    Counts,
    Progress,
    duration,
    encoder_lines,
    progress_line,
    summary_lines,
)
from rayclip.report.results import Estimate, Failure, Summary

DEADLINE_S = 10.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (7, "0:07"),
        (59.6, "1:00"),
        (250, "4:10"),
        (3599, "59:59"),
        (3600, "1:00:00"),
        (7450, "2:04:10"),
        (360_000, "100:00:00"),
    ],
)
def test_durations_are_written_as_clocks_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("counts", "total", "seconds", "line"),
    [
        (Counts(), 200, 0.0, "0/200 videos, 0 frames/s"),
        (Counts(0, 0, encoded=320), 200, 2.0, "0/200 videos, 160 frames/s"),
        (Counts(12, 0, encoded=5440), 200, 16.0, "12/200 videos, 340 frames/s, 4:11 left"),
        (Counts(9, 1, encoded=100), 20, 10.0, "10/20 videos, 10 frames/s, 0:10 left, 1 failed"),
        (Counts(20, 0, encoded=100), 20, 10.0, "20/20 videos, 10 frames/s"),
        (Counts(0, 2, encoded=0), 2, 1.0, "2/2 videos, 0 frames/s, 2 failed"),
    ],
)
def test_the_line_says_how_far_how_fast_and_how_long_still(
    counts: Counts, total: int, seconds: float, line: str
) -> None:
    assert progress_line(counts, total, seconds) == line


def test_what_each_encoder_did_is_one_line() -> None:
    work = [BatchStats(4, 50, 64, 3, 1.26, 2.52), BatchStats()]
    assert encoder_lines(work, each=True) == [
        "encoder 0: 50 frames in 4 batches, mean batch fill 0.78, 3 of them shared by several "
        "chunks, busy 1.3 s",
        "encoder 1: 0 frames in 0 batches, mean batch fill 0.00, 0 of them shared by several "
        "chunks, busy 0.0 s",
        "encoders: mean batch fill 0.78, busy 50% of the time; bottleneck: decoding: add CPUs",
    ]
    assert len(encoder_lines(work, each=False)) == 1


def test_encoders_that_are_nearly_always_busy_are_the_bottleneck() -> None:
    (line,) = encoder_lines([BatchStats(1, 8, 8, 0, busy_s=9.5, room_s=10.0)], each=False)
    assert line.endswith("busy 95% of the time; bottleneck: encoding: add GPUs")


def test_a_run_that_encoded_nothing_has_no_bottleneck() -> None:
    assert encoder_lines([BatchStats()], each=False) == []


def test_a_note_is_written_once() -> None:
    stream = io.StringIO()
    with Progress(
        1, lambda: Counts(notes=("An encoder has no memory.",)), lambda: "", stream
    ) as progress:
        progress._tell(Counts(notes=("An encoder has no memory.",)))
    assert stream.getvalue() == "An encoder has no memory.\n"


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
def test_the_summary_says_what_was_done_skipped_and_failed(
    summary: Summary, lines: Sequence[str]
) -> None:
    assert summary_lines(summary) == lines


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
def test_a_limited_run_says_about_how_long_all_videos_would_take(
    seconds: float, words: str
) -> None:
    lines = summary_lines(Summary(done=1, estimate=Estimate(1_000_000, seconds)))
    assert lines[-1] == f"all 1,000,000 videos would take about {words} at this rate"


def test_of_many_failures_that_are_in_a_file_ten_are_named() -> None:
    lines = summary_lines(Summary(failed=failures(13), output_path="out"))
    assert len([line for line in lines if "not_found" in line]) == 10
    assert lines[-1] == "  and 3 more, in failures.jsonl"


def test_failures_that_are_in_no_file_are_all_named() -> None:
    lines = summary_lines(Summary(failed=failures(13)))
    assert len([line for line in lines if "not_found" in line]) == 13


# ---- while it goes on ----


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayclip.report.progress.TERMINAL_PERIOD_S", 0.001)
    monkeypatch.setattr("rayclip.report.progress.PLAIN_PERIOD_S", 0.001)


def shown(stream: io.StringIO, polls: Sequence[Counts | None], show: bool = True) -> str:
    """What is written while these answers are given, one after the other."""
    answers = iter(polls)
    all_asked = threading.Event()

    def poll() -> Counts | None:
        answer = next(answers, None)
        if answer is None:
            all_asked.set()
        return answer

    with Progress(10, poll, lambda: "an encoder waits for a GPU", stream, show):
        assert all_asked.wait(DEADLINE_S)
    return stream.getvalue()


def test_a_terminal_has_one_live_line_that_is_gone_at_the_end() -> None:
    text = shown(Terminal(), [Counts(1), Counts(2)])
    first, second, third, rest = text.split("\r\x1b[K")
    assert (first, rest) == ("", "")
    assert second.startswith("1/10 videos, ")
    assert third.startswith("2/10 videos, ")


def test_elsewhere_each_report_is_a_line_without_control_characters() -> None:
    lines = shown(io.StringIO(), [Counts(1), Counts(2)]).splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["1/10", "2/10"]
    assert all(line.isprintable() for line in lines)


def test_a_run_in_which_nothing_moves_says_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rayclip.report.progress.SILENCE_S", 0.0)
    (line,) = shown(io.StringIO(), [Counts(1)]).splitlines()
    assert line.endswith("; nothing for 0:00: an encoder waits for a GPU")


def test_without_progress_what_is_awaited_is_said_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    polls = [Counts(1), Counts(2), Counts(2), Counts(2)]
    monkeypatch.setattr("rayclip.report.progress.SILENCE_S", 30.0)
    assert shown(io.StringIO(), polls, show=False) == ""
    monkeypatch.setattr("rayclip.report.progress.SILENCE_S", 0.0)
    lines = shown(io.StringIO(), polls, show=False).splitlines()
    assert lines
    assert all(line.endswith("an encoder waits for a GPU") for line in lines)


def test_a_run_that_moves_does_not_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayclip.report.progress.SILENCE_S", 30.0)
    text = shown(io.StringIO(), [Counts(encoded=1), Counts(encoded=2)])
    assert "nothing" not in text


class Closed(Terminal):
    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")


def test_a_run_goes_on_when_its_terminal_is_gone() -> None:
    shown(Closed(), [Counts(1), Counts(2)])


def test_nothing_is_shown_where_it_is_not_known_how_far_it_is() -> None:
    assert shown(io.StringIO(), [None]) == ""


def test_a_name_cannot_write_lines_of_its_own() -> None:
    hostile = Failure("a\nvideos: 9 done\x1b[2J.mp4", "open", "not_found", "no\nfile", 1)
    lines = summary_lines(Summary(failed=(hostile,)))
    assert lines[-1] == r"  'a\nvideos: 9 done\x1b[2J.mp4': 'open/not_found: no\nfile'"
