"""Which videos are given up after how many deaths, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rayclip.actors.attempts import (
    MAX_KILLS,
    AttemptLog,
    give_up_error,
)
from rayclip.actors.messages import FinishedVideo, TaskUpdate, VideoInProgress, WorkerProcess
from rayclip.io.crash_log import Cause, Death, unrecorded_death

CRASH = Death(Cause.CRASH, "Segmentation fault", (1,))
SHARED_CRASH = replace(CRASH, busy=(1, 2))
HANG = Death(Cause.HANG, "libav has made no progress for 300 s", (1,))
LARGE = Death(Cause.MEMORY, "it has grown to 1953 MB of memory", (1,))
KILL = unrecorded_death((1,))
SHARED_KILL = replace(KILL, busy=(1, 2))
UNKNOWN_CRASH = replace(CRASH, busy=None)


def given_up(deaths: list[Death], max_attempts: int = 3) -> tuple[str, str] | None:
    error = give_up_error(deaths, max_attempts)
    return error and (error.code, error.message)


@pytest.mark.parametrize(
    "deaths",
    [
        [],
        [CRASH],
        [SHARED_CRASH, CRASH],
        [CRASH, HANG, KILL, KILL],
        [KILL] * (MAX_KILLS - 1),
        [KILL] * (MAX_KILLS - 1) + [CRASH, CRASH],
    ],
)
def test_a_video_that_may_still_succeed_is_retried(deaths: list[Death]) -> None:
    assert given_up(deaths) is None


@pytest.mark.parametrize(
    ("deaths", "code", "message"),
    [
        (
            [SHARED_CRASH, CRASH, CRASH],
            "worker_crashed",
            "its worker process crashed 3 times (Segmentation fault)",
        ),
        (
            [HANG, KILL, HANG, KILL, HANG],
            "worker_hung",
            "its worker process hung 3 times (libav has made no progress for 300 s)",
        ),
        (
            [LARGE, LARGE, LARGE],
            "too_much_memory",
            "its worker process took too much memory 3 times (it has grown to 1953 MB of memory)",
        ),
        (
            [CRASH, CRASH, *[KILL] * MAX_KILLS],
            "worker_killed",
            "its worker process was killed 10 times (it may need more memory than there is)",
        ),
    ],
)
def test_a_video_that_keeps_ending_its_process_is_given_up(
    deaths: list[Death], code: str, message: str
) -> None:
    assert given_up(deaths) == (code, message)


def test_a_video_is_given_up_only_after_an_attempt_on_its_own() -> None:
    assert given_up([SHARED_CRASH], max_attempts=1) is None
    assert given_up([SHARED_CRASH, CRASH], max_attempts=1) is not None
    assert given_up([CRASH], max_attempts=1) == (
        "worker_crashed",
        "its worker process crashed once (Segmentation fault)",
    )


# ---- the log ----

FIRST, SECOND = WorkerProcess("node 1", "/tmp/first"), WorkerProcess("node 2", "/tmp/second")
DONE, FAILED = FinishedVideo(failed=False, frames=7), FinishedVideo(failed=True, frames=0)
B_AND_C = {1: VideoInProgress("b", 2.0), 2: VideoInProgress("c", 1.0)}


@pytest.fixture
def log() -> AttemptLog:
    """Return the log of one task: videos b and c are in progress, a is finished."""
    log = AttemptLog()
    assert log.begin_task("task", FIRST) is None
    log.update_task("task", TaskUpdate({0: DONE}, B_AND_C))
    return log


def test_a_death_counts_for_all_videos_in_progress(log: AttemptLog) -> None:
    assert log.last_process("task") == FIRST
    deaths = log.begin_task("task", SECOND, SHARED_CRASH)
    assert log.last_process("task") == SECOND
    assert deaths == {1: [SHARED_CRASH], 2: [SHARED_CRASH]}


def test_the_crash_log_takes_precedence_over_the_last_update(log: AttemptLog) -> None:
    died = replace(CRASH, busy=(3,))
    assert log.begin_task("task", SECOND, died) == {3: [died]}


def test_the_last_update_decides_if_the_crash_log_is_lost(log: AttemptLog) -> None:
    deaths = log.begin_task("task", SECOND, UNKNOWN_CRASH)
    assert deaths == {1: [SHARED_CRASH], 2: [SHARED_CRASH]}


def test_a_finished_video_is_never_blamed(log: AttemptLog) -> None:
    log.update_task("task", TaskUpdate({1: DONE}, {2: VideoInProgress("c", 1.0)}))
    died = replace(CRASH, busy=(0, 1, 2))
    assert log.begin_task("task", SECOND, died) == {2: [replace(CRASH, busy=(2,))]}


def test_a_video_that_was_not_retried_is_not_blamed_for_the_next_death(log: AttemptLog) -> None:
    log.begin_task("task", SECOND, SHARED_CRASH)
    deaths = log.begin_task("task", FIRST, HANG)
    assert deaths == {1: [SHARED_CRASH, HANG], 2: [SHARED_CRASH]}


def test_updates_of_a_dead_process_blame_no_video_for_the_death_of_the_next(
    log: AttemptLog,
) -> None:
    log.begin_task("task", SECOND, SHARED_KILL)
    deaths = log.begin_task("task", FIRST, UNKNOWN_CRASH)
    assert deaths == {1: [SHARED_KILL], 2: [SHARED_KILL]}


def test_videos_are_counted_once_however_often_their_task_runs(log: AttemptLog) -> None:
    log.begin_task("task", SECOND, SHARED_KILL)
    log.update_task("task", TaskUpdate({0: DONE, 1: FAILED}))
    log.end_task("task", TaskUpdate({1: FAILED}))
    assert (log.done, log.failed, log.frames) == (1, 1, 7)


def test_a_task_whose_output_was_lost_is_retried_without_blame(log: AttemptLog) -> None:
    log.end_task("task", TaskUpdate())
    assert log.last_process("task") is None
    assert log.begin_task("task", SECOND) == {}
    log.update_task("task", TaskUpdate({1: DONE}))
    assert (log.done, log.frames) == (1, 7)  # its videos were counted


def test_the_longest_running_video_is_reported(log: AttemptLog) -> None:
    longest = log.longest_running()
    assert longest is not None
    process, busy = longest
    assert (process, busy.video) == (FIRST, "b")
    assert busy.since_s >= 2.0
    log.end_task("task", TaskUpdate())
    assert log.longest_running() is None
