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
    """A watchdog, its violations, and an event that is set by the first."""
    violations: list[Violation] = []
    has_reported = threading.Event()

    def on_violation(violation: Violation) -> None:
        violations.append(violation)
        has_reported.set()

    watchdog = Watchdog(limit_s, max_growth, max_memory, on_violation)
    try:
        yield watchdog, violations, has_reported
    finally:
        watchdog.close()


def pass_time(seconds: float, meanwhile: Callable[[], None] | None = None) -> None:
    """Wait until another watchdog with this limit has found a hang."""
    with on_watch(seconds) as (clock, _, hung), clock.watching("the clock"), clock:
        while not hung.wait(0.001 if meanwhile else DEADLINE_S):
            assert meanwhile is not None, "it never found one"
            meanwhile()


def test_a_hanging_call_is_reported_once_with_its_video() -> None:
    with on_watch(0.05) as (watchdog, violations, hung), watchdog.watching("a.mp4"), watchdog:
        assert hung.wait(DEADLINE_S)
        pass_time(0.2)
    assert violations == [Violation(Cause.HANG, "a.mp4", "libav has made no progress for 0.05 s")]


def test_time_between_calls_does_not_count() -> None:
    with on_watch(0.05) as (watchdog, violations, _), watchdog.watching("a.mp4"):
        with watchdog:
            pass
        pass_time(0.2)
    assert violations == []


def test_a_call_that_fails_has_ended() -> None:
    with on_watch(0.05) as (watchdog, violations, _), watchdog.watching("a.mp4"):
        with pytest.raises(OSError, match="broken"), watchdog:
            raise OSError("broken")
        pass_time(0.2)
    assert violations == []


def test_time_between_videos_does_not_count_after_an_interrupt() -> None:
    with on_watch(0.05) as (watchdog, violations, _):
        with watchdog.watching("a.mp4"):
            watchdog.__enter__()  # an interrupt prevents its __exit__
        pass_time(0.2)
    assert violations == []


def test_arriving_bytes_are_progress() -> None:
    with on_watch(0.5) as (watchdog, violations, _), watchdog.watching("a.mp4"), watchdog:
        pass_time(1.0, meanwhile=watchdog.report_progress)
    assert violations == []


def test_consecutive_calls_are_progress() -> None:
    def end_and_begin() -> None:
        watchdog.__exit__()
        watchdog.__enter__()

    with on_watch(0.5) as (watchdog, violations, _), watchdog.watching("a.mp4"), watchdog:
        pass_time(1.0, meanwhile=end_and_begin)
    assert violations == []


def test_a_second_video_is_watched_too() -> None:
    with on_watch(0.05) as (watchdog, violations, hung):
        for video in ("a.mp4", "b.mp4"):
            with watchdog.watching(video), watchdog:
                pass
        with watchdog.watching("c.mp4"), watchdog:
            assert hung.wait(DEADLINE_S)
    assert violations[0].video == "c.mp4"


def test_closing_ends_the_thread() -> None:
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


def test_a_suspended_process_did_not_hang() -> None:
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
            pass_time(0.2)  # a clock would now show a hang
            process.stdin.write(b"!")
            process.stdin.flush()
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()


# ---- memory ----


def allocated(size: int, kind: int = mmap.MAP_PRIVATE) -> mmap.mmap:
    """Private memory that is returned to the system when it is closed."""
    block = mmap.mmap(-1, size, kind | mmap.MAP_ANONYMOUS)
    for place in range(0, size, mmap.PAGESIZE):
        block[place] = 1
    return block


def wait_for_checks() -> None:
    """Wait until another watchdog has checked its memory several times."""
    for _ in range(3):
        with on_watch(DEADLINE_S, max_memory=-1) as (clock, _, looked), clock.watching("the clock"):
            assert looked.wait(DEADLINE_S)


def keep_calling(watchdog: Watchdog) -> None:
    """Make calls until one fails."""
    for _ in range(int(DEADLINE_S / 0.01)):
        with watchdog:
            pass
        threading.Event().wait(0.01)


@needs_proc
def test_private_memory_counts_and_shared_memory_does_not() -> None:
    before = private_bytes()
    with allocated(64 * MB):
        assert private_bytes() - before > 48 * MB
    with allocated(64 * MB, mmap.MAP_SHARED):
        assert private_bytes() - before < 48 * MB


@needs_proc
def test_a_video_that_takes_too_much_memory_fails_at_the_next_call() -> None:
    with on_watch(DEADLINE_S, 64 * MB) as (watchdog, violations, _):
        with (
            watchdog.watching("a.mp4"),
            allocated(128 * MB),
            pytest.raises(BadVideo, match="decoding takes more than 64 MB") as caught,
        ):
            keep_calling(watchdog)
        with watchdog.watching("the next.mp4"):
            wait_for_checks()
            with watchdog:
                pass
    assert (caught.value.stage, caught.value.code) == ("decode", "too_much_memory")
    assert violations == []


@needs_proc
def test_earlier_memory_does_not_count_for_a_video() -> None:
    with (
        allocated(128 * MB),
        on_watch(DEADLINE_S, 64 * MB) as (watchdog, _, _),
        watchdog.watching("a.mp4"),
        allocated(8 * MB),
    ):
        wait_for_checks()
        with watchdog:
            pass


@needs_proc
def test_a_process_that_grows_too_large_is_reported_once_with_its_video() -> None:
    most = private_bytes() + 64 * MB
    with (
        on_watch(DEADLINE_S, max_memory=most) as (watchdog, violations, has_reported),
        watchdog.watching("a.mp4"),
        allocated(128 * MB),
    ):
        assert has_reported.wait(DEADLINE_S)
        wait_for_checks()
    (violation,) = violations
    assert (violation.cause, violation.video) == (Cause.MEMORY, "a.mp4")
    assert violation.reason.startswith("it has grown to ")


@needs_proc
def test_memory_is_not_checked_between_videos() -> None:
    with on_watch(DEADLINE_S, max_memory=private_bytes() + 64 * MB) as (watchdog, violations, _):
        with watchdog.watching("a.mp4"):
            pass
        with allocated(128 * MB):
            wait_for_checks()
    assert violations == []


@needs_proc
def test_memory_of_work_beside_decoding_does_not_count_while_it_lasts() -> None:
    most = private_bytes() + 64 * MB
    with (
        on_watch(DEADLINE_S, 64 * MB, most) as (watchdog, violations, has_reported),
        watchdog.watching("a.mp4"),
    ):
        with watchdog.exempting(128 * MB), allocated(128 * MB):
            wait_for_checks()
            with watchdog:
                pass
        assert violations == []
        with allocated(128 * MB):
            assert has_reported.wait(DEADLINE_S)
