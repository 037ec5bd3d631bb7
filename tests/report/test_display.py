"""What a run shows on terminals of several widths, and on streams that are none."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import threading
from typing import TextIO

import pytest
from terminals import Terminal

from rayclip.console import say_to_user
from rayclip.model.load_stage import LoadStage, report_bytes, stage
from rayclip.report.display import Display
from rayclip.report.progress_words import Goal
from rayclip.report.run_stats import BatchStats, RunState

WIDTHS = [60, 80, 120]
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")
BUSY = RunState(1_234, 56, 0, (BatchStats(frames=71_040),), (0,), placed=1, up=1)
STALL = "no progress for 0:45: videos/a.mp4 has been in progress for 45 s; it is being decoded"


@pytest.fixture(autouse=True)
def _a_plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "JPY_PARENT_PID", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def show_everything(display: Display) -> None:
    """Show whatever a run may show; each view is drawn at least once."""
    with display:
        display.phase("Reading the list of videos")
        with display.hidden():
            pass
        display.say("ViT-B/32 on cpu; encoders: 1, batch size: 16, decoding tasks at once: 1")
        loading = LoadStage("Downloading ViT-B-32.pt", 120_000_000, 353_000_000)
        starting = RunState(0, 0, 0, (BatchStats(loading=loading),), (0,), placed=1, up=0)
        for state, stall in ((starting, ""), (BUSY, ""), (BUSY, STALL)):
            display.progress(state, Goal(1_000_000), 52.1, stall)
            with display.hidden():
                pass


def lines(text: str) -> list[str]:
    """The lines that were ever shown, without control sequences."""
    return [line.rstrip() for line in re.split(r"[\r\n]+", CONTROL.sub("", text)) if line.strip()]


@pytest.mark.parametrize("columns", WIDTHS)
def test_no_line_is_wider_than_the_terminal(columns: int) -> None:
    terminal = Terminal(columns)
    show_everything(Display(terminal.stream))
    shown = lines(terminal.close())
    assert max(map(len, shown)) <= columns
    text = " ".join(shown)
    assert "Reading the list of videos" in text
    assert re.search(r"Downloading ViT-B-32.pt \d+ s", text)
    assert "34% 120/353 MB" in text
    assert "1,290/1,000,000 videos" in text
    assert "71,040 frames, 1364 frames/s, 11:12:15 left, 56 failed" in text
    assert "it is being decoded" in " ".join(text.split())


def test_the_first_words_come_before_slow_imports() -> None:
    slow = {"rich", "numpy", "pyarrow", "ray", "torch"}
    code = f"import sys, rayclip.report.display; print({slow} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"


def test_the_live_region_is_erased_at_the_end_and_lines_stay() -> None:
    terminal = Terminal(80)
    with Display(terminal.stream) as display:
        display.progress(BUSY, Goal(2000), 1.0, STALL)
        display.say("A line.")
    text = terminal.close()
    assert lines(text).count("A line.") == 1
    assert text.rstrip("\r\n").endswith("\x1b[2K")
    assert "\x1b[?25l" not in text  # a killed program leaves the cursor visible


def test_lines_of_others_appear_above_the_live_region(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(80)
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    with Display():
        say_to_user("There is no GPU here: using the CPU.")
    assert "There is no GPU here: using the CPU." in lines(terminal.close())


def test_long_paths_are_not_broken() -> None:
    terminal = Terminal(60)
    path = "/features/" + "a_long_name/" * 9
    with Display(terminal.stream) as display:
        display.say(f"The features are in {path}")
    assert path in CONTROL.sub("", terminal.close())


def test_bytes_of_a_model_loaded_by_this_process_are_shown() -> None:
    terminal = Terminal(80)
    with Display(terminal.stream) as display, stage("Downloading s3://models/clip.pt"):
        report_bytes(25_000_000, 100_000_000)
        with display.hidden():
            pass
    assert re.search(r"25% 25/100 MB", " ".join(lines(terminal.close())))


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    def written() -> str:
        terminal = Terminal(80)
        show_everything(Display(terminal.stream))
        return terminal.close()

    assert COLOUR.search(written())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not COLOUR.search(written())


def only_lines(stream: TextIO) -> None:
    display = Display(stream)
    assert not display.is_live
    show_everything(display)


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("JPY_PARENT_PID", "7")])
def test_dumb_terminals_and_notebooks_only_get_lines(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    terminal = Terminal(60)
    only_lines(terminal.stream)
    text = terminal.close()
    assert "\x1b" not in text
    assert text.splitlines() == [
        "ViT-B/32 on cpu; encoders: 1, batch size: 16, decoding tasks",
        "  at once: 1",
    ]


def test_other_streams_get_whole_lines() -> None:
    stream = io.StringIO()
    only_lines(stream)
    assert stream.getvalue() == (
        "ViT-B/32 on cpu; encoders: 1, batch size: 16, decoding tasks at once: 1\n"
    )


def test_without_a_live_region_a_long_phase_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    said = threading.Event()

    class Stream(io.StringIO):
        def flush(self) -> None:
            said.set()

    monkeypatch.setattr("rayclip.report.display.PLAIN_PERIOD_S", 0.0)
    stream = Stream()
    with Display(stream):
        assert said.wait(10)
    assert stream.getvalue() == "Starting ...\n"


def test_nothing_is_shown_unless_it_must_be() -> None:
    terminal = Terminal(80)
    with Display(terminal.stream, show=False) as display:
        display.phase("Starting Ray")
        display.say("A line.")
        display.say("A stall.", always=True)
    assert lines(terminal.close()) == ["A stall."]
