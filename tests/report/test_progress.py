"""What a person sees while a run goes on."""

import errno
import io
import threading
from collections.abc import Sequence

import pytest

from rayclip.report.progress import Progress, duration, progress_line
from rayclip.report.run_stats import BatchStats, RunState

DEADLINE_S = 10.0


def so_far(
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
def test_durations_are_written_as_clocks_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("state", "total", "seconds", "line"),
    [
        (so_far(), 200, 0.0, "0/200 videos, 0 frames/s"),
        (so_far(0, 0, encoded=320), 200, 2.0, "0/200 videos, 160 frames/s"),
        (so_far(12, 0, encoded=5440), 200, 16.0, "12/200 videos, 340 frames/s, 4:11 left"),
        (so_far(9, 1, encoded=100), 20, 10.0, "10/20 videos, 10 frames/s, 0:10 left, 1 failed"),
        (so_far(20, 0, encoded=100), 20, 10.0, "20/20 videos, 10 frames/s"),
        (so_far(0, 2, encoded=0), 2, 1.0, "2/2 videos, 0 frames/s, 2 failed"),
    ],
)
def test_the_line_says_how_far_how_fast_and_how_long_still(
    state: RunState, total: int, seconds: float, line: str
) -> None:
    assert progress_line(state, total, seconds) == line


def test_a_note_is_written_once() -> None:
    stream = io.StringIO()
    with Progress(
        1, lambda: so_far(notes=("An encoder has no memory.",)), lambda: "", stream
    ) as progress:
        progress._tell(so_far(notes=("An encoder has no memory.",)))
    assert stream.getvalue().count("An encoder has no memory.\n") == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayclip.report.progress.TERMINAL_PERIOD_S", 0.001)
    monkeypatch.setattr("rayclip.report.progress.PLAIN_PERIOD_S", 0.001)


def shown(stream: io.StringIO, polls: Sequence[RunState | None], show: bool = True) -> str:
    """What is written while these answers are given, one after the other."""
    answers = iter(polls)
    all_asked = threading.Event()

    def poll() -> RunState | None:
        answer = next(answers, None)
        if answer is None:
            all_asked.set()
        return answer

    with Progress(10, poll, lambda: "an encoder waits for a GPU", stream, show):
        assert all_asked.wait(DEADLINE_S)
    return stream.getvalue()


def test_a_terminal_has_one_live_line_that_is_gone_at_the_end() -> None:
    text = shown(Terminal(), [so_far(1), so_far(2)])
    first, second, third, rest = text.split("\r\x1b[K")
    assert (first, rest) == ("", "")
    assert second.startswith("1/10 videos, ")
    assert third.startswith("2/10 videos, ")


def test_elsewhere_each_report_is_a_line_without_control_characters() -> None:
    lines = shown(io.StringIO(), [so_far(1), so_far(2)]).splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["1/10", "2/10"]
    assert all(line.isprintable() for line in lines)


def test_a_run_in_which_nothing_moves_says_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rayclip.report.progress.SILENCE_S", 0.0)
    (line,) = shown(io.StringIO(), [so_far(1)]).splitlines()
    assert line.endswith("; nothing for 0:00: an encoder waits for a GPU")


def test_without_progress_what_is_awaited_is_said_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    polls = [so_far(1), so_far(2), so_far(2), so_far(2)]
    monkeypatch.setattr("rayclip.report.progress.SILENCE_S", 30.0)
    assert shown(io.StringIO(), polls, show=False) == ""
    monkeypatch.setattr("rayclip.report.progress.SILENCE_S", 0.0)
    lines = shown(io.StringIO(), polls, show=False).splitlines()
    assert lines
    assert all(line.endswith("an encoder waits for a GPU") for line in lines)


def test_a_run_that_moves_does_not_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayclip.report.progress.SILENCE_S", 30.0)
    text = shown(io.StringIO(), [so_far(encoded=1), so_far(encoded=2)])
    assert "nothing" not in text


class Closed(Terminal):
    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")


def test_a_run_goes_on_when_its_terminal_is_gone() -> None:
    shown(Closed(), [so_far(1), so_far(2)])


def test_nothing_is_shown_where_it_is_not_known_how_far_it_is() -> None:
    assert shown(io.StringIO(), [None]) == ""
