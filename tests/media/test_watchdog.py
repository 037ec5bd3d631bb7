"""What counts as a hang, and how a process that hangs ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from rayclip.media.watchdog import HUNG_STATUS, Watchdog

DEADLINE_S = 60.0


@contextmanager
def on_watch(limit_s: float) -> Iterator[tuple[Watchdog, list[str], threading.Event]]:
    """A watchdog, what it said, and whether it has said something."""
    said: list[str] = []
    hung = threading.Event()

    def on_hang(message: str) -> None:
        said.append(message)
        hung.set()

    watchdog = Watchdog(limit_s, on_hang)
    try:
        yield watchdog, said, hung
    finally:
        watchdog.close()


def pass_time(seconds: float, meanwhile: Callable[[], None] | None = None) -> None:
    """Wait for another watchdog: so long takes it to find a hang."""
    with on_watch(seconds) as (clock, _, hung), clock.watching("the clock"), clock:
        while not hung.wait(0.001 if meanwhile else DEADLINE_S):
            assert meanwhile is not None, "it never found one"
            meanwhile()


def test_a_call_that_does_not_end_is_told_once_by_the_name_of_its_video() -> None:
    with on_watch(0.05) as (watchdog, said, hung), watchdog.watching("a.mp4"), watchdog:
        assert hung.wait(DEADLINE_S)
        pass_time(0.2)
    assert said == [
        "rayclip: a.mp4: libav has not moved for 0.05 s and cannot be interrupted, "
        "so this process ends"
    ]


def test_time_between_calls_does_not_count() -> None:
    with on_watch(0.05) as (watchdog, said, _), watchdog.watching("a.mp4"):
        with watchdog:
            pass
        pass_time(0.2)
    assert said == []


def test_a_call_that_fails_has_ended() -> None:
    with on_watch(0.05) as (watchdog, said, _), watchdog.watching("a.mp4"):
        with pytest.raises(OSError, match="broken"), watchdog:
            raise OSError("broken")
        pass_time(0.2)
    assert said == []


def test_time_between_videos_does_not_count_whatever_ended_the_last() -> None:
    with on_watch(0.05) as (watchdog, said, _):
        with watchdog.watching("a.mp4"):
            watchdog.__enter__()  # and an interrupt came before its __exit__
        pass_time(0.2)
    assert said == []


def test_bytes_that_arrive_are_progress() -> None:
    with on_watch(0.5) as (watchdog, said, _), watchdog.watching("a.mp4"), watchdog:
        pass_time(1.0, meanwhile=watchdog.moved)
    assert said == []


def test_one_call_after_another_is_progress() -> None:
    def end_and_begin() -> None:
        watchdog.__exit__()
        watchdog.__enter__()

    with on_watch(0.5) as (watchdog, said, _), watchdog.watching("a.mp4"), watchdog:
        pass_time(1.0, meanwhile=end_and_begin)
    assert said == []


def test_a_second_video_is_watched_too() -> None:
    with on_watch(0.05) as (watchdog, said, hung):
        for video in ("a.mp4", "b.mp4"):
            with watchdog.watching(video), watchdog:
                pass
        with watchdog.watching("c.mp4"), watchdog:
            assert hung.wait(DEADLINE_S)
    assert "c.mp4" in said[0]


def test_its_thread_ends_with_it() -> None:
    before = set(threading.enumerate())
    with on_watch(DEADLINE_S) as (watchdog, _, _):
        assert set(threading.enumerate()) == before
        for _ in range(2):
            with watchdog.watching("a.mp4"):
                assert len(set(threading.enumerate()) - before) == 1
    assert set(threading.enumerate()) == before


HANGING = r"""
import ctypes
from rayclip.media.watchdog import Watchdog

watchdog = Watchdog(0.1)
with watchdog.watching("not utf-8 \udcff.mp4"):
    try:
        with watchdog:
            ctypes.CDLL(None).pause()
    finally:
        print("this is not reached")
"""


def test_a_process_that_hangs_in_c_is_ended() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert ended.returncode == HUNG_STATUS
    assert ended.stderr.splitlines() == [
        r"rayclip: not utf-8 \udcff.mp4: libav has not moved for 0.1 s and cannot be "
        "interrupted, so this process ends"
    ]
    assert ended.stdout == ""


WAITING = """
import os
from rayclip.media.watchdog import Watchdog

watchdog = Watchdog(1.6)
with watchdog.watching("a.mp4"), watchdog:
    os.write(1, b"!")
    os.read(0, 1)
"""


def test_a_process_that_was_stopped_did_not_hang() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITING], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdout.read(1)
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            pass_time(2.0)
            process.send_signal(signal.SIGCONT)
            pass_time(0.2)  # who had looked at a clock would now find a hang
            process.stdin.write(b"!")
            process.stdin.flush()
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
