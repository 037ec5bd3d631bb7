"""Who is given up after how many deaths, and why."""

from __future__ import annotations

import pytest

from rayclip.actors.attempts import (
    CRASHED,
    HUNG,
    KILLED,
    MOST_KILLS,
    AttemptLog,
    Busy,
    Death,
    Ended,
    News,
    Process,
    why_to_give_up,
)
from rayclip.actors.journal import busy_by, note_of_begin, note_of_end

CRASH = Death(CRASHED, "Segmentation fault")
SHARED_CRASH = Death(CRASHED, "Segmentation fault", alone=False)
HANG = Death(HUNG, "libav has not moved for 300 s")
KILL = Death(KILLED, "it may need more memory than there is")
ANY_KILL = Death(KILLED, "it may need more memory than there is", alone=False)


def given_up(deaths: list[Death], max_attempts: int = 3) -> tuple[str, str] | None:
    error = why_to_give_up(deaths, max_attempts)
    return error and (error.code, error.message)


@pytest.mark.parametrize(
    ("last_words", "death"),
    [
        ("Fatal Python error: Segmentation fault\n\nCurrent thread 0x7f:\n  File …", CRASH),
        (
            "rayclip: a\nb.mp4: libav has not moved for 300 s and cannot be interrupted, so this "
            "process ends",
            HANG,
        ),
        (
            "rayclip: a.mp4: decoding it has brought this process to 1953 MB of memory, so it ends",
            Death("too_much_memory", "has brought this process to 1953 MB of memory"),
        ),
        (None, KILL),
        ("[h264 @ 0x5] a warning", KILL),
    ],
)
def test_last_words_tell_a_crash_from_a_hang_and_silence_is_a_kill(
    last_words: str | None, death: Death
) -> None:
    assert Death.told_by(last_words) == death


@pytest.mark.parametrize(
    "deaths",
    [
        [],
        [CRASH],
        [SHARED_CRASH, CRASH],
        [CRASH, HANG, KILL, KILL],
        [KILL] * (MOST_KILLS - 1),
        [KILL] * (MOST_KILLS - 1) + [CRASH, CRASH],
    ],
)
def test_a_video_that_may_yet_succeed_is_tried_again(deaths: list[Death]) -> None:
    assert given_up(deaths) is None


@pytest.mark.parametrize(
    ("deaths", "code", "message"),
    [
        (
            [SHARED_CRASH, CRASH, CRASH],
            CRASHED,
            "its worker process crashed 3 times (Segmentation fault)",
        ),
        (
            [HANG, KILL, HANG, KILL, HANG],
            HUNG,
            "its worker process hung 3 times (libav has not moved for 300 s)",
        ),
        (
            [CRASH, CRASH, *[KILL] * MOST_KILLS],
            KILLED,
            "its worker process was killed 10 times (it may need more memory than there is)",
        ),
    ],
)
def test_what_ends_its_process_again_and_again_is_given_up(
    deaths: list[Death], code: str, message: str
) -> None:
    assert given_up(deaths) == (code, message)


def test_the_last_attempt_is_one_alone() -> None:
    assert given_up([SHARED_CRASH], max_attempts=1) is None
    assert given_up([SHARED_CRASH, CRASH], max_attempts=1) is not None
    assert given_up([CRASH], max_attempts=1) == (
        CRASHED,
        "its worker process crashed once (Segmentation fault)",
    )


# ---- the log ----

FIRST, SECOND = Process("node 1", "/tmp/first"), Process("node 2", "/tmp/second")
DONE, FAILED = Ended(failed=False, frames=7), Ended(failed=True, frames=0)
B_AND_C = {1: Busy("b", 2.0), 2: Busy("c", 1.0)}


@pytest.fixture
def log() -> AttemptLog:
    """One in which a process has begun with a group: b and c are at work, a is finished."""
    log = AttemptLog()
    assert log.begin_group("group", FIRST) is None
    log.note("group", News({0: DONE}, B_AND_C))
    return log


def test_a_death_is_shared_by_all_that_were_at_work(log: AttemptLog) -> None:
    assert log.process_of("group") == FIRST
    deaths = log.begin_group("group", SECOND, CRASH, busy={1, 2})
    assert log.process_of("group") == SECOND
    assert deaths == {1: [SHARED_CRASH], 2: [SHARED_CRASH]}


def test_what_the_process_noted_is_newer_than_what_it_told(log: AttemptLog) -> None:
    assert log.begin_group("group", SECOND, CRASH, busy={3}) == {3: [CRASH]}


def test_where_its_notes_are_lost_the_last_news_tell(log: AttemptLog) -> None:
    deaths = log.begin_group("group", SECOND, CRASH, busy=None)
    assert deaths == {1: [SHARED_CRASH], 2: [SHARED_CRASH]}


def test_what_is_finished_is_innocent(log: AttemptLog) -> None:
    log.note("group", News({1: DONE}, {2: Busy("c", 1.0)}))
    assert log.begin_group("group", SECOND, CRASH, busy={0, 1, 2}) == {2: [CRASH]}


def test_what_was_not_begun_again_has_no_part_in_the_next_death(log: AttemptLog) -> None:
    log.begin_group("group", SECOND, CRASH, busy={1, 2})
    deaths = log.begin_group("group", FIRST, HANG, busy={1})
    assert deaths == {1: [SHARED_CRASH, HANG], 2: [SHARED_CRASH]}


def test_news_of_a_process_that_died_blame_nobody_for_the_death_of_the_next(
    log: AttemptLog,
) -> None:
    log.begin_group("group", SECOND, KILL, busy={1, 2})
    assert log.begin_group("group", FIRST, CRASH, busy=None) == {1: [ANY_KILL], 2: [ANY_KILL]}


def test_videos_are_counted_once_however_often_their_group_runs(log: AttemptLog) -> None:
    log.begin_group("group", SECOND, KILL, busy={1, 2})
    log.note("group", News({0: DONE, 1: FAILED}))
    log.end_group("group", News({1: FAILED}))
    assert (log.done, log.failed, log.frames) == (1, 1, 7)


def test_a_group_whose_output_was_lost_is_begun_again_without_blame(log: AttemptLog) -> None:
    log.end_group("group", News())
    assert log.process_of("group") is None
    assert log.begin_group("group", SECOND) == {}
    log.note("group", News({1: DONE}))
    assert (log.done, log.frames) == (1, 7)  # its videos were counted


def test_the_video_that_is_at_work_the_longest_is_told(log: AttemptLog) -> None:
    longest = log.longest()
    assert longest is not None
    process, busy = longest
    assert (process, busy.video) == (FIRST, "b")
    assert busy.since_s >= 2.0
    log.end_group("group", News())
    assert log.longest() is None


def test_a_video_that_waits_to_be_saved_is_innocent_of_what_ends_its_process() -> None:
    log = AttemptLog()
    log.begin_group("group", FIRST)
    notes = [note_of_begin(0, "made.mp4"), note_of_end(0), note_of_begin(1, "guilty.mp4")]
    busy = busy_by("\n".join(notes))
    assert busy == {1: "guilty.mp4"}
    assert log.begin_group("group", SECOND, CRASH, busy) == {1: [CRASH]}
    assert log.done == 0
