"""What a process is doing while it loads a model, on one thread or several."""

from __future__ import annotations

import threading

from rayclip.model.load_stage import LoadStage, current_stage, report_bytes, stage


def test_an_inner_stage_replaces_the_outer_one_meanwhile() -> None:
    with stage("Loading the model"):
        with stage("Downloading a.pt"):
            report_bytes(3, 10)
            assert current_stage() == LoadStage("Downloading a.pt", 3, 10)
        assert current_stage() == LoadStage("Loading the model")
    assert current_stage() is None


def test_threads_that_load_at_the_same_time_leave_no_stage() -> None:
    entered, left = threading.Event(), threading.Event()

    def load() -> None:
        with stage("on another device"):
            entered.set()
            left.wait()

    other = threading.Thread(target=load)
    with stage("on one device"):
        other.start()
        entered.wait()
        report_bytes(1, 2)
        assert current_stage() == LoadStage("on one device", 1, 2)
    assert current_stage() == LoadStage("on another device")
    left.set()
    other.join()
    assert current_stage() is None
