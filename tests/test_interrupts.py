"""Signals end a program cleanly or immediately; a private Ray ends with its program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from run_cli import DEADLINE_S, alive, wait_until

SLOW_TO_END = """
import time
from rayclip.interrupts import Terminated, end_on_signals
end_on_signals()
try:
    print("begun", flush=True)
    time.sleep(100)
except (KeyboardInterrupt, Terminated) as error:
    print(getattr(error, "exit_status", 130), flush=True)
    time.sleep(100)
"""
IN_A_CALLBACK = """
import os, signal, time
from rayclip.interrupts import Terminated, end_on_signals, ending_status
end_on_signals()

class Callback:
    def __del__(self):
        os.kill(os.getpid(), NUMBER)
        time.sleep(0.01)

try:
    callback = Callback()
    del callback  # Python ignores what is raised in there
    time.sleep(100)
except (KeyboardInterrupt, Terminated):
    print(ending_status(), flush=True)
"""
IN_A_CALLBACK_OF_LIBAV = """
import io, os, signal, time
from contextlib import suppress
import av
from rayclip.interrupts import Terminated, end_on_signals, ending_status
end_on_signals()

class File(io.BytesIO):
    def seek(self, *place):
        if ending_status() is None:
            os.kill(os.getpid(), NUMBER)
            time.sleep(0.01)
        return super().seek(*place)

try:
    with suppress(av.FFmpegError):
        av.open(File(VIDEO))
    time.sleep(100)
except (KeyboardInterrupt, Terminated):
    print(ending_status(), flush=True)
"""
WHILE_PARSING = """
import os, signal
from rayclip import cli, key_value_args
translate_key_values = key_value_args.translate_key_values

def interrupted(*given):
    os.kill(os.getpid(), NUMBER)
    return translate_key_values(*given)

cli.translate_key_values = interrupted
from rayclip.__main__ import main
import sys
sys.argv = ["rayclip", "extract", "a.mp4"]
main()
"""
SEEKING = bytes.fromhex("00000010 66747970 69736f6d 00000000 00000100 6d646174") + bytes(4096)
"""The head of an mp4 file whose index comes last, for which libav seeks."""
PRIVATE = """
import subprocess, sys, time
from rayclip.session.reaper import reaped
with reaped(sys.argv[1]):
    sleep = "import time; time.sleep(100)"
    for place in ("/opt/ray/agent.py", "/opt/editor"):
        words = [sys.executable, "-c", sleep, place, sys.argv[1]]
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        print(child.pid, flush=True)
    sys.stdin.read(1)
"""


@contextmanager
def started(program: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    command = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=_listen,
    )
    try:
        yield command
    finally:
        command.kill()
        command.communicate()


def _listen() -> None:
    """A suite in the background, or under nohup, ignores these, and so would its children."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def line_of(command: subprocess.Popen[str]) -> str:
    assert command.stdout is not None
    return command.stdout.readline().strip()


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["Ctrl-C", "SIGTERM", "closed terminal"],
)
def test_the_first_signal_ends_cleanly_and_the_second_immediately(
    number: signal.Signals, status: int
) -> None:
    with started(SLOW_TO_END) as command:
        assert line_of(command) == "begun"
        command.send_signal(number)
        assert line_of(command) == str(status)
        command.send_signal(number)
        assert command.wait(DEADLINE_S) == status


HALF_AN_IMPORT = """
import signal, sys, threading
from rayclip.interrupts import import_uninterrupted
main = threading.main_thread().ident
threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT)).start()
try:
    import_uninterrupted("slow")
except KeyboardInterrupt:
    print("interrupted", import_uninterrupted("slow").whole, flush=True)
"""


def test_an_interrupt_leaves_no_module_half_imported(tmp_path: Path) -> None:
    """Otherwise torch would be unusable in that notebook."""
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(1)\nwhole = 1")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{HALF_AN_IMPORT}"
    with started(program) as command:
        assert line_of(command) == "interrupted 1"


ENDING = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize("place", ["a destructor", "a callback of libav"])
@pytest.mark.parametrize(("number", "status"), ENDING)
def test_a_signal_whose_exception_is_ignored_still_ends_the_program_and_is_not_printed(
    number: int, status: int, place: str
) -> None:
    program = IN_A_CALLBACK if place == "a destructor" else IN_A_CALLBACK_OF_LIBAV
    program = program.replace("NUMBER", str(int(number))).replace("VIDEO", repr(SEEKING))
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, preexec_fn=_listen
    )
    assert (ended.stdout, ended.returncode) == (f"{status}\n", 0)
    assert ended.stderr == ""


@pytest.mark.parametrize(("number", "status"), ENDING)
def test_a_signal_converted_to_another_exception_by_a_library_keeps_its_status(
    number: int, status: int
) -> None:
    """As Ray's compiled code does: "returned a result with an exception set"."""
    program = WHILE_PARSING.replace("NUMBER", str(int(number))).replace(
        "    return translate_key_values(*given)",
        "    time.sleep(0.1)\n\n"
        "def wrapped(*given):\n"
        "    try: interrupted(*given)\n"
        "    except BaseException as error: raise SystemError('a result') from error",
    )
    program = program.replace("= interrupted", "= wrapped").replace(
        "import os,", "import time, os,"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, preexec_fn=_listen
    )
    assert ended.returncode == status
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(("number", "status"), ENDING)
def test_a_signal_while_the_command_line_is_read_has_its_status(number: int, status: int) -> None:
    program = WHILE_PARSING.replace("NUMBER", str(int(number)))
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, preexec_fn=_listen
    )
    assert ended.returncode == status
    assert "Traceback" not in ended.stderr


DEFERRED = """
import os, time
from rayclip.interrupts import Terminated, deferred_signals, end_on_signals, ending_status
end_on_signals()
try:
    with deferred_signals():
        os.kill(os.getpid(), NUMBER)
        time.sleep(0.01)
        print("whole", flush=True)
        FAILURE
    print("not reached", flush=True)
except (KeyboardInterrupt, Terminated):
    print(ending_status(), flush=True)
    with deferred_signals():
        os.kill(os.getpid(), NUMBER)
        time.sleep(100)
"""


@pytest.mark.parametrize("failure", ["pass", "raise OSError"], ids=["done", "failed"])
@pytest.mark.parametrize(("number", "status"), ENDING)
def test_a_signal_that_is_deferred_comes_after_the_block_and_a_second_one_is_not(
    number: int, status: int, failure: str
) -> None:
    program = DEFERRED.replace("NUMBER", str(int(number))).replace("FAILURE", failure)
    with started(program) as command:
        assert [line_of(command), line_of(command)] == ["whole", str(status)]
        assert command.wait(DEADLINE_S) == status


def test_an_inherited_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    with started(f"import signal; signal.signal(1, signal.SIG_IGN)\n{SLOW_TO_END}") as command:
        assert line_of(command) == "begun"
        command.send_signal(signal.SIGHUP)
        command.send_signal(signal.SIGTERM)
        assert line_of(command) == "143"


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "ended"])
def test_the_folder_of_a_private_ray_and_what_is_left_of_it_go_with_the_process_that_made_it(
    kill: bool, tmp_path: Path
) -> None:
    """Also where that ended in order: Ray may have left an agent that nobody else would end."""
    folder = tmp_path / "rayclip-abc"
    (folder / "session").mkdir(parents=True)
    with started(PRIVATE, str(folder)) as command:
        children = [psutil.Process(int(line_of(command))) for _ in range(2)]
        try:
            (reaper,) = set(psutil.Process(command.pid).children()) - set(children)
            if kill:
                command.kill()
            else:
                command.communicate("x")
            wait_until(lambda: not alive([reaper]), "the end of the reaper")
            assert not folder.exists()
            agent, editor = children
            wait_until(lambda: not alive([agent]), "the end of the agent")
            assert alive([editor])  # that looks at a file in there is none of its business
        finally:
            for child in children:
                with suppress(psutil.NoSuchProcess):
                    os.kill(child.pid, signal.SIGKILL)
