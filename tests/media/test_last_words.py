"""What is left of a process that died, and nothing of one that did not."""

from __future__ import annotations

import faulthandler
import subprocess
import sys
from pathlib import Path

import pytest

from rayclip.media import last_words

DYING = """
import ctypes, os, signal, sys
from rayclip.media import last_words

with last_words.kept(sys.argv[1]):
    exec(sys.argv[2])
"""


def die(path: Path, how: str) -> subprocess.CompletedProcess[str]:
    """Let a process keep its last words in a file, and do something that ends it."""
    return subprocess.run([sys.executable, "-c", DYING, path, how], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("ctypes.string_at(0)", "Fatal Python error: Segmentation fault\n"),
        ("os.abort()", "Fatal Python error: Aborted\n"),
        ("last_words.say('no more \\udcff'); os._exit(1)", "no more \\udcff"),
    ],
)
def test_what_a_process_says_as_it_dies_can_be_read_once(
    how: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "words"
    assert die(path, how).returncode != 0
    said = last_words.read(str(path))
    assert said is not None
    assert said.startswith(words)
    assert last_words.read(str(path)) is None
    assert not path.exists()


def test_what_a_process_noted_outlives_a_kill_and_can_be_read_before(tmp_path: Path) -> None:
    path = str(tmp_path / "words")
    die(tmp_path / "words", "last_words.note('+1 x'); os.kill(os.getpid(), signal.SIGKILL)")
    assert last_words.read(path, keep=True) == "+1 x"
    assert last_words.read(path) == "+1 x"
    assert last_words.read(path) is None


def test_a_process_that_is_killed_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "words"
    die(path, "os.kill(os.getpid(), signal.SIGKILL)")
    assert path.exists()
    assert last_words.read(str(path)) is None
    assert not path.exists()


@pytest.mark.parametrize("how", ["pass", "sys.exit(3)"])
def test_a_process_that_lives_on_leaves_no_file(how: str, tmp_path: Path) -> None:
    die(tmp_path / "words", how)
    assert not (tmp_path / "words").exists()


def test_words_go_to_standard_error_too(tmp_path: Path) -> None:
    ended = die(tmp_path / "words", "last_words.say('no more'); os._exit(1)")
    assert ended.stderr == "no more\n"


def test_where_no_file_can_be_made_work_goes_on(tmp_path: Path) -> None:
    with last_words.kept(str(tmp_path / "nowhere" / "words")):
        pass


def test_the_fault_handler_is_left_as_it_was(tmp_path: Path) -> None:
    before = faulthandler.is_enabled()
    with last_words.kept(str(tmp_path / "words")):
        assert faulthandler.is_enabled()
    assert faulthandler.is_enabled() == before
