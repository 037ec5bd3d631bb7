"""What may be with an encoder at a time, shared among the tasks that send."""

from __future__ import annotations

from rayclip.actors.credits import (
    ACTIVE_S,
    FIRST_FRAMES,
    LEAST_FRAMES,
    Creditor,
    Debt,
    Terms,
    budget_frames,
)

MB = 2**20


def test_the_budget_is_a_tenth_of_the_object_store() -> None:
    assert budget_frames(1000 * MB, 224) == 100 * MB // (3 * 224 * 224)


def test_the_budget_is_two_gigabytes_at_the_most() -> None:
    assert budget_frames(1e15, 224) == 2048 * MB // (3 * 224 * 224)


def test_a_tiny_object_store_still_lets_a_task_begin() -> None:
    assert budget_frames(1 * MB, 336) == LEAST_FRAMES


def test_a_task_alone_gets_the_whole_budget() -> None:
    creditor = Creditor(1000)
    creditor.arrived("a", 64, now_s=0.0)
    assert creditor.answered(64, now_s=1.0) == Terms(waiting=0, window=1000)


def test_tasks_share_the_budget() -> None:
    creditor = Creditor(1000)
    for task in ("a", "b", "c", "d"):
        creditor.arrived(task, 64, now_s=0.0)
    assert creditor.answered(64, now_s=1.0) == Terms(waiting=192, window=250)


def test_however_many_tasks_there_are_their_windows_are_within_the_budget() -> None:
    for tasks in (1, 3, 10, 100, 999):
        creditor = Creditor(1000)
        for task in range(tasks):
            creditor.arrived(str(task), 1, now_s=0.0)
        assert creditor.answered(1, now_s=0.0).window * tasks <= 1000


def test_a_task_that_is_gone_leaves_its_share_to_the_others() -> None:
    creditor = Creditor(1000)
    creditor.arrived("gone", 64, now_s=0.0)
    creditor.answered(64, now_s=0.0)
    creditor.arrived("a", 64, now_s=ACTIVE_S)
    assert creditor.answered(64, now_s=ACTIVE_S + 1).window == 1000


def test_a_task_sends_no_more_than_its_window() -> None:
    debt = Debt(frames=192, terms=Terms(waiting=192, window=256))
    assert debt.allows(64)
    assert not debt.allows(65)


def test_a_task_with_nothing_there_may_send_a_chunk_whatever_its_window() -> None:
    assert Debt(frames=0, terms=Terms(waiting=5000, window=1)).allows(64)


def test_before_the_first_answer_a_task_sends_little() -> None:
    debt = Debt()
    assert debt.allows(FIRST_FRAMES)
    assert not Debt(frames=FIRST_FRAMES).allows(1)


def test_the_load_of_an_encoder_is_what_it_told_or_what_was_sent_since() -> None:
    told = Terms(waiting=500, window=1000, rate=100.0)
    assert Debt(frames=10, terms=told, told_s=7.0).load_s(now_s=7.0) == 5.0
    assert Debt(frames=600, terms=told, told_s=7.0).load_s(now_s=7.0) == 6.0


def test_what_an_encoder_told_is_done_as_time_passes_and_what_was_sent_is_not() -> None:
    told = Terms(waiting=500, window=1000, rate=100.0)
    assert Debt(frames=10, terms=told, told_s=7.0).load_s(now_s=11.0) == 1.0
    assert Debt(frames=10, terms=told, told_s=7.0).load_s(now_s=99.0) == 0.1


def test_a_faster_encoder_has_less_to_do_with_as_many_frames() -> None:
    slow, fast = (Debt(64, Terms(waiting=640, window=900, rate=rate)) for rate in (40.0, 4000.0))
    assert fast.load_s(0.0) < slow.load_s(0.0)


def test_an_encoder_that_has_not_said_how_fast_it_is_has_some_load_of_what_it_was_sent() -> None:
    assert 0 < Debt(frames=64).load_s(9.0) < Debt(frames=128).load_s(9.0)
