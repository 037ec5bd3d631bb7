"""What counts as a hang or as too much memory, and how a process ends for it."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from rayclip.errors import BadVideo
from rayclip.io.crash_log import Cause
from rayclip.media.watchdog import Violation, Watchdog, private_bytes

DEADLINE_S = 60.0
MB = 2**20

needs_proc = pytest.mark.skipif(not private_bytes(), reason="the system has no /proc")


@contextmanager
def on_watch(
    limit_s: float, max_growth: int = sys.maxsize, max_memory: int = sys.maxsize
) -> Iterator[tuple[Watchdog, list[Violation], threading.Event]]:
    """A watchdog, what it said, and whether it has said something."""
    said: list[Violation] = []
    has_spoken = threading.Event()

    def on_violation(violation: Violation) -> None:
        said.append(violation)
        has_spoken.set()

    watchdog = Watchdog(limit_s, max_growth, max_memory, on_violation)
    try:
        yield watchdog, said, has_spoken
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
    assert said == [Violation(Cause.HANG, "a.mp4", "libav has made no progress for 0.05 s")]


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
        pass_time(1.0, meanwhile=watchdog.report_progress)
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
    assert said[0].video == "c.mp4"


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
    assert ended.returncode == os.EX_TEMPFAIL
    assert ended.stderr.splitlines() == [
        r"rayclip: not utf-8 \udcff.mp4: its decoding process exits: libav has made no progress "
        "for 0.1 s"
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


# ---- memory ----


def taken(size: int, kind: int = mmap.MAP_PRIVATE) -> mmap.mmap:
    """Memory of this process that goes back to the system at once when it is closed."""
    block = mmap.mmap(-1, size, kind | mmap.MAP_ANONYMOUS)
    for place in range(0, size, mmap.PAGESIZE):
        block[place] = 1
    return block


def pass_looks() -> None:
    """Wait until another watchdog has looked at its memory some times."""
    for _ in range(3):
        with on_watch(DEADLINE_S, max_memory=-1) as (clock, _, looked), clock.watching("the clock"):
            assert looked.wait(DEADLINE_S)


def keep_calling(watchdog: Watchdog) -> None:
    """Call one after another, until one is refused."""
    for _ in range(int(DEADLINE_S / 0.01)):
        with watchdog:
            pass
        threading.Event().wait(0.01)


@needs_proc
def test_memory_of_ones_own_counts_and_what_is_shared_does_not() -> None:
    before = private_bytes()
    with taken(64 * MB):
        assert private_bytes() - before > 48 * MB
    with taken(64 * MB, mmap.MAP_SHARED):
        assert private_bytes() - before < 48 * MB


@needs_proc
def test_a_video_that_takes_too_much_is_given_up_at_the_next_call() -> None:
    with on_watch(DEADLINE_S, 64 * MB) as (watchdog, said, _):
        with (
            watchdog.watching("a.mp4"),
            taken(128 * MB),
            pytest.raises(BadVideo, match="decoding takes more than 64 MB") as caught,
        ):
            keep_calling(watchdog)
        with watchdog.watching("the next.mp4"):
            pass_looks()
            with watchdog:
                pass
    assert (caught.value.stage, caught.value.code) == ("decode", "too_much_memory")
    assert said == []


@needs_proc
def test_what_a_process_had_before_is_not_the_fault_of_a_video() -> None:
    with (
        taken(128 * MB),
        on_watch(DEADLINE_S, 64 * MB) as (watchdog, _, _),
        watchdog.watching("a.mp4"),
        taken(8 * MB),
    ):
        pass_looks()
        with watchdog:
            pass


@needs_proc
def test_a_process_that_grows_too_large_is_told_once_by_the_name_of_the_video() -> None:
    most = private_bytes() + 64 * MB
    with (
        on_watch(DEADLINE_S, max_memory=most) as (watchdog, said, has_spoken),
        watchdog.watching("a.mp4"),
        taken(128 * MB),
    ):
        assert has_spoken.wait(DEADLINE_S)
        pass_looks()
    (violation,) = said
    assert (violation.cause, violation.video) == (Cause.MEMORY, "a.mp4")
    assert violation.reason.startswith("it has grown to ")


@needs_proc
def test_memory_is_not_looked_at_between_videos() -> None:
    with on_watch(DEADLINE_S, max_memory=private_bytes() + 64 * MB) as (watchdog, said, _):
        with watchdog.watching("a.mp4"):
            pass
        with taken(128 * MB):
            pass_looks()
    assert said == []
