"""What Prometheus is told about a run."""

from __future__ import annotations

import collections

import pytest

from rayclip.actors import metrics
from rayclip.actors.metrics import RunMetrics
from rayclip.report.run_stats import BatchStats, RunState

Tags = dict[str, str]
told: dict[tuple[str, str | None], list[float]] = collections.defaultdict(list)


class Metric:
    """Takes the place of Ray's, and refuses what it refuses."""

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self._name = name
        self._tag_keys = tag_keys

    def inc(self, value: float, tags: Tags) -> None:
        assert value > 0
        self.set(value, tags)

    def set(self, value: float, tags: Tags) -> None:
        assert set(tags) == set(self._tag_keys)
        assert tags["model_name"] == "demo"
        told[self._name, tags.get("encoder")].append(value)


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    told.clear()
    monkeypatch.setattr(metrics, "Counter", Metric)
    monkeypatch.setattr(metrics, "Gauge", Metric)


def state(done: int, failed: int, work: list[BatchStats], waiting: list[int]) -> RunState:
    return RunState(done, failed, 0, tuple(work), tuple(waiting), len(work), len(work))


def work(frames: int, capacity: int, busy_s: float, room_s: float) -> BatchStats:
    return BatchStats(frames=frames, capacity=capacity, busy_s=busy_s, room_s=room_s)


def test_counters_get_what_was_done_since_they_were_told_last() -> None:
    run = RunMetrics("demo")
    run.record(state(3, 1, [work(10, 16, 1, 2), work(0, 0, 0, 0)], [0, 0]))
    run.record(state(3, 2, [work(25, 32, 2, 4), work(5, 16, 1, 1)], [0, 0]))
    assert told["rayclip_videos", None] == [3]
    assert told["rayclip_failures", None] == [1, 1]
    assert told["rayclip_frames", "0"] == [10, 15]
    assert told["rayclip_frames", "1"] == [5]


def test_gauges_are_about_the_time_since_they_were_told_last() -> None:
    run = RunMetrics("demo")
    run.record(state(0, 0, [work(8, 16, 1, 2)], [640]))
    run.record(state(0, 0, [work(24, 32, 2, 12)], [64]))
    run.record(state(0, 0, [work(24, 32, 2, 12)], [0]))
    assert told["rayclip_batch_fill", "0"] == [0.5, 1.0, 0.0]
    assert told["rayclip_encoder_busy", "0"] == [0.5, 0.1, 0.0]
    assert told["rayclip_queue_frames", "0"] == [640, 64, 0]
