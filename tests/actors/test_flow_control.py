"""How many frames may be with an encoder at a time, divided among the tasks that send."""

from __future__ import annotations

from rayclip.actors.flow_control import (
    ACTIVE_S,
    FIRST_WINDOW,
    MIN_FRAMES,
    Outstanding,
    Quota,
    budget_frames,
)

MB = 2**20


def test_the_budget_is_a_tenth_of_the_object_store() -> None:
    assert budget_frames(1000 * MB, 224) == 100 * MB // (3 * 224 * 224)


def test_the_budget_is_at_most_two_gigabytes() -> None:
    assert budget_frames(1e15, 224) == 2048 * MB // (3 * 224 * 224)


def test_a_tiny_object_store_still_lets_a_task_begin() -> None:
    assert budget_frames(1 * MB, 336) == MIN_FRAMES


def test_a_lone_task_gets_the_whole_budget() -> None:
    assert Quota(1000).window_for("a", now_s=1.0) == 1000


def test_however_many_tasks_there_are_their_windows_fit_in_the_budget() -> None:
    for tasks in (1, 3, 10, 100, 999):
        quota = Quota(1000)
        windows = [quota.window_for(str(task), now_s=0.0) for task in range(tasks)]
        assert windows[-1] == 1000 // tasks


def test_an_inactive_task_leaves_its_share_to_the_others() -> None:
    quota = Quota(1000)
    quota.window_for("gone", now_s=0.0)
    assert quota.window_for("a", now_s=ACTIVE_S / 2) == 500
    assert quota.window_for("a", now_s=ACTIVE_S) == 1000


def test_a_task_sends_no_more_than_its_window() -> None:
    outstanding = Outstanding(frames=192, window=256)
    assert outstanding.allows(64)
    assert not outstanding.allows(65)


def test_a_task_with_nothing_outstanding_may_send_a_chunk_whatever_its_window() -> None:
    assert Outstanding(frames=0, window=1).allows(64)


def test_before_the_first_reply_a_task_sends_little() -> None:
    assert Outstanding().allows(FIRST_WINDOW)
    assert not Outstanding(frames=FIRST_WINDOW).allows(1)
