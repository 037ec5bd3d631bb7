"""How many frames may be with an encoder at a time, divided among the tasks that send."""

from __future__ import annotations

import numpy as np
import pytest

from rayclip.actors.flow_control import (
    ACTIVE_S,
    CHUNK_BYTES,
    FIRST_WINDOW,
    FRAME_BYTES,
    MIN_BUDGET,
    Outstanding,
    Quota,
    budget_bytes,
    counted_bytes,
    frames_per_chunk,
)

MB = 2**20


def test_the_budget_is_a_tenth_of_the_object_store() -> None:
    assert budget_bytes(1000 * MB) == 100 * MB


def test_the_budget_is_at_most_two_gigabytes() -> None:
    assert budget_bytes(1e15) == 2048 * MB


def test_a_tiny_object_store_still_lets_a_task_begin() -> None:
    assert budget_bytes(1 * MB) == MIN_BUDGET


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
    outstanding = Outstanding(size=192, window=256)
    assert outstanding.allows(64)
    assert not outstanding.allows(65)


def test_a_task_with_nothing_outstanding_may_send_a_chunk_whatever_its_window() -> None:
    assert Outstanding(size=0, window=1).allows(64)


def test_before_the_first_reply_a_task_sends_little() -> None:
    assert Outstanding().allows(FIRST_WINDOW)
    assert not Outstanding(size=FIRST_WINDOW).allows(1)


@pytest.mark.parametrize(
    ("n_px", "frames"), [(8, 64), (64, 64), (224, 64), (336, 28), (518, 11), (2000, 1)]
)
def test_a_chunk_has_at_most_64_frames_and_the_bytes_of_64_frames_of_224_pixels(
    n_px: int, frames: int
) -> None:
    assert frames_per_chunk(3 * n_px * n_px) == frames
    chunk = [np.empty((n_px, n_px, 3), np.uint8)] * frames
    assert counted_bytes(chunk) <= CHUNK_BYTES or frames == 1


def test_small_frames_count_as_frames_of_224_pixels_and_larger_ones_as_their_bytes() -> None:
    assert counted_bytes([np.empty((8, 8, 3), np.uint8)] * 5) == 5 * FRAME_BYTES
    assert counted_bytes([np.empty((518, 518, 3), np.uint8)] * 5) == 5 * 3 * 518 * 518
    assert counted_bytes([]) == 0
