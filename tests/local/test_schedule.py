"""Which videos a worker process gets: each once, unless it dies; then suspects go alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rayclip.actors.attempts import give_up_error
from rayclip.errors import RunStopped
from rayclip.io.crash_log import LOADING, Cause, Death
from rayclip.local.messages import TAR_POSITIONS, Task
from rayclip.local.schedule import MAX_IDLE_DEATHS, Schedule

VIDEOS = 4  # of a task


def schedule(tasks: int, at_once: int = 2, max_ahead: int | None = None) -> Schedule:
    names = [f"{number}.mp4" for number in range(tasks * VIDEOS)]
    starts = range(0, len(names), VIDEOS)
    return Schedule(
        (Task(start, names[start : start + VIDEOS]) for start in starts), at_once, max_ahead
    )


def handed_out(plan: Schedule) -> list[list[int]]:
    """The positions in the run of the unfinished videos of each task that is handed out now."""
    tasks = iter(plan.next_task, None)
    return [[task.start + i for i in range(VIDEOS) if task.lacks(i)] for task in tasks]


def crash(busy: Sequence[int | str] | None) -> Death:
    return Death(Cause.CRASH, "Segmentation fault", None if busy is None else tuple(busy))


def finish(plan: Schedule, *positions: int) -> None:
    for position in positions:
        assert plan.finish(position)


def test_a_worker_has_so_many_tasks_at_once_until_all_are_done() -> None:
    plan = schedule(3)
    assert handed_out(plan) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    plan.end_task(4)
    assert handed_out(plan) == [[8, 9, 10, 11]]
    plan.end_task(8)
    assert not plan.is_done
    plan.end_task(0)
    assert plan.is_done


def test_no_task_begins_far_ahead_of_the_first_unfinished_video() -> None:
    plan = schedule(3, max_ahead=7)
    handed_out(plan)
    plan.end_task(4)
    assert handed_out(plan) == []
    plan.end_task(0)
    assert handed_out(plan) == [[8, 9, 10, 11]]


def test_suspects_go_again_alone_before_anything_else() -> None:
    plan = schedule(3)
    handed_out(plan)
    finish(plan, 0, 5)
    plan.reschedule(crash([1, 6, 7]))
    for suspect, start in ((1, 0), (6, 4), (7, 4)):
        assert handed_out(plan) == [[suspect]]
        finish(plan, suspect)
        plan.end_task(start)
    assert handed_out(plan) == [[2, 3], [4]]


def test_each_retry_knows_of_the_deaths_during_its_video() -> None:
    plan = schedule(2)
    handed_out(plan)
    plan.reschedule(crash([1, 6]))
    task = plan.next_task()
    assert task is not None
    assert task.is_retry
    ((position, (death,)),) = task.deaths.items()
    assert (position, {*(death.busy or ())}) == (1, {1, 6})


def test_a_video_is_given_up_after_a_death_of_its_own() -> None:
    plan = schedule(2)
    handed_out(plan)
    plan.reschedule(crash([1, 6]))
    task = plan.next_task()
    assert task is not None
    assert give_up_error(task.deaths[1], max_attempts=1) is None
    plan.reschedule(crash([1]))
    for _ in range(2):
        task = plan.next_task()
        assert task is not None
        plan.end_task(task.start)
    assert [i for i in range(VIDEOS) if task.lacks(i)] == [1]
    assert give_up_error(task.deaths[1], max_attempts=2) is not None


def test_parts_of_a_task_are_not_handed_out_at_once() -> None:
    plan = schedule(1)
    handed_out(plan)
    plan.reschedule(crash([1]))
    assert handed_out(plan) == [[1]]
    plan.reschedule(crash([]))
    (first,) = handed_out(plan)
    plan.end_task(0)
    (second,) = handed_out(plan)
    assert sorted(first + second) == [0, 1, 2, 3]


def test_a_finished_video_is_no_suspect() -> None:
    plan = schedule(1)
    handed_out(plan)
    finish(plan, 2)
    plan.reschedule(crash([2, 3]))
    assert handed_out(plan) == [[3]]


def test_if_nobody_knows_what_it_was_working_on_each_video_is_a_suspect() -> None:
    plan = schedule(1)
    handed_out(plan)
    finish(plan, 0)
    plan.reschedule(crash(None))
    assert handed_out(plan) == [[1]]


def test_a_result_that_comes_twice_counts_once() -> None:
    plan = schedule(1)
    handed_out(plan)
    finish(plan, 2)
    assert not plan.finish(2)


@pytest.mark.parametrize(
    ("busy", "sentence"),
    [((LOADING,), "while they load the model"), ((), "keeps dying: Segmentation fault")],
    ids=["loading", "between videos"],
)
def test_a_worker_that_keeps_dying_without_a_video_ends_the_run(
    busy: tuple[str, ...], sentence: str
) -> None:
    plan = schedule(1)
    for _ in range(MAX_IDLE_DEATHS - 1):
        plan.reschedule(crash(busy))
    handed_out(plan)
    finish(plan, 0)  # it works after all
    for _ in range(MAX_IDLE_DEATHS - 1):
        plan.reschedule(crash(busy))
    with pytest.raises(RunStopped, match=sentence):
        plan.reschedule(crash(busy))


# ---- tar files, of which nobody knows how many videos they have ----


def tar_schedule() -> Schedule:
    starts = (0, TAR_POSITIONS)
    return Schedule((Task(start, ["a.tar"], of_tar=True) for start in starts), at_once=2)


def wanted(plan: Schedule) -> list[tuple[int, list[int]]]:
    """The starts of the tasks that are handed out now, with those of their first positions that
    they extract."""
    tasks = iter(plan.next_task, None)
    return [(task.start, [i for i in range(4) if task.lacks(i)]) for task in tasks]


def test_only_a_suspect_of_a_tar_file_goes_again_alone() -> None:
    plan = tar_schedule()
    assert wanted(plan) == [(0, [0, 1, 2, 3]), (TAR_POSITIONS, [0, 1, 2, 3])]
    finish(plan, 0, TAR_POSITIONS, TAR_POSITIONS + 1)
    plan.reschedule(crash([2]))
    assert wanted(plan) == [(0, [2])]
    finish(plan, 2)
    plan.end_task(0)
    assert wanted(plan) == [(0, [1, 3]), (TAR_POSITIONS, [2, 3])]


def test_a_suspect_of_a_tar_file_goes_again_even_if_another_process_dies_without_blaming_it() -> (
    None
):
    plan = tar_schedule()
    wanted(plan)
    plan.reschedule(crash([2]))
    assert wanted(plan) == [(0, [2])]
    plan.reschedule(crash([]))
    assert wanted(plan) == [(0, [2]), (TAR_POSITIONS, [0, 1, 2, 3])]
    finish(plan, 2)
    plan.end_task(0)
    assert wanted(plan) == [(0, [0, 1, 3])]  # last, since it reports on the tar file


def test_a_suspect_that_its_tar_file_could_not_give_again_goes_with_the_others() -> None:
    plan = tar_schedule()
    wanted(plan)
    plan.reschedule(crash([2]))
    assert wanted(plan) == [(0, [2])]
    plan.end_task(0)
    assert wanted(plan) == [(0, [0, 1, 2, 3]), (TAR_POSITIONS, [0, 1, 2, 3])]
