"""What a run shows of its progress."""

import errno
import io
import threading
from collections.abc import Sequence

import pytest

from rayclip.model.load_stage import LoadStage
from rayclip.report.display import Display
from rayclip.report.progress import Progress
from rayclip.report.progress_words import Goal, duration, progress_line
from rayclip.report.run_stats import BatchStats, RunState

DEADLINE_S = 10.0


def state_with(
    done: int = 0, failed: int = 0, encoded: int = 0, notes: tuple[str, ...] = ()
) -> RunState:
    stats = BatchStats(frames=encoded, notes=notes)
    return RunState(done, failed, 0, (stats,), (0,), placed=1, up=1)


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
def test_durations_are_formatted_like_a_clock(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("state", "total", "seconds", "line"),
    [
        (state_with(), 200, 0.0, "0/200 videos, 0 frames/s"),
        (state_with(0, 0, encoded=320), 200, 2.0, "0/200 videos, 160 frames/s"),
        (state_with(12, 0, encoded=5440), 200, 16.0, "12/200 videos, 340 frames/s, 4:11 left"),
        (state_with(9, 1, encoded=100), 20, 10.0, "10/20 videos, 10 frames/s, 0:10 left, 1 failed"),
        (state_with(20, 0, encoded=100), 20, 10.0, "20/20 videos, 10 frames/s"),
        (state_with(0, 2, encoded=0), 2, 1.0, "2/2 videos, 0 frames/s, 2 failed"),
    ],
)
def test_the_line_has_the_progress_the_rate_and_the_remaining_time(
    state: RunState, total: int, seconds: float, line: str
) -> None:
    assert progress_line(state, Goal(total), seconds) == line


@pytest.mark.parametrize(
    ("placed", "loading", "text"),
    [
        (0, None, "Starting the encoders"),
        (1, None, "Loading the model"),
        (1, LoadStage("Compiling the model"), "Compiling the model"),
        (
            1,
            LoadStage("Downloading RN50.pt", 12_000_000, 244_000_000),
            "Downloading RN50.pt 12/244 MB",
        ),
    ],
)
def test_before_an_encoder_is_up_the_line_says_what_is_awaited(
    placed: int, loading: LoadStage | None, text: str
) -> None:
    state = RunState(0, 1, 0, (BatchStats(loading=loading),), (0,), placed, up=0)
    assert progress_line(state, Goal(20), 1.0) == f"1/20 videos, {text}"


def test_a_note_is_written_once() -> None:
    note = "An encoder has no memory."
    noted = [state_with(notes=(note,)), state_with(notes=(note,))]
    assert shown(io.StringIO(), noted).count(f"{note}\n") == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def short_periods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("rayclip.report.progress.TERMINAL_PERIOD_S", 0.001)
    monkeypatch.setattr("rayclip.report.progress.PLAIN_PERIOD_S", 0.001)


def shown(stream: io.StringIO, polls: Sequence[RunState | None], show: bool = True) -> str:
    """What is written if polling returns these states in turn."""
    states = iter(polls)
    all_polled = threading.Event()

    def poll() -> RunState | None:
        state = next(states, None)
        if state is None:
            all_polled.set()
        return state

    display = Display(stream, show)
    with display, Progress(Goal(10), poll, lambda: "an encoder waits for a GPU", display):
        assert all_polled.wait(DEADLINE_S)
    return stream.getvalue()


def test_without_a_terminal_each_report_is_a_line_without_control_characters() -> None:
    lines = shown(io.StringIO(), [state_with(1), state_with(2)]).splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["1/10", "2/10"]
    assert all(line.isprintable() for line in lines)


def test_a_stalled_run_says_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rayclip.report.progress.SILENCE_S", 0.0)
    (line,) = shown(io.StringIO(), [state_with(1)]).splitlines()
    assert line.endswith("; no progress for 0:00: an encoder waits for a GPU")


def test_without_progress_only_stalls_are_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    polls = [state_with(1), state_with(2), state_with(2), state_with(2)]
    monkeypatch.setattr("rayclip.report.progress.SILENCE_S", 30.0)
    assert shown(io.StringIO(), polls, show=False) == ""
    monkeypatch.setattr("rayclip.report.progress.SILENCE_S", 0.0)
    lines = shown(io.StringIO(), polls, show=False).splitlines()
    assert lines
    assert all(line.endswith("an encoder waits for a GPU") for line in lines)


def test_a_run_with_progress_reports_no_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayclip.report.progress.SILENCE_S", 30.0)
    text = shown(io.StringIO(), [state_with(encoded=1), state_with(encoded=2)])
    assert "no progress" not in text


class Closed(Terminal):
    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")


def test_a_run_goes_on_when_its_terminal_is_gone() -> None:
    shown(Closed(), [state_with(1), state_with(2)])


def test_nothing_is_shown_if_the_state_is_unknown() -> None:
    assert shown(io.StringIO(), [None]) == ""
