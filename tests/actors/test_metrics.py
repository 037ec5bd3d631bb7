"""What is published to Prometheus."""

from __future__ import annotations

import collections

import pytest

from rayclip.actors import metrics
from rayclip.actors.metrics import RunMetrics
from rayclip.report.run_stats import BatchStats, RunState

Tags = dict[str, str]
published: dict[tuple[str, str | None], list[float]] = collections.defaultdict(list)


class Metric:
    """A fake of Ray's metrics, with the same checks."""

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self._name = name
        self._tag_keys = tag_keys

    def inc(self, value: float, tags: Tags) -> None:
        assert value > 0
        self.set(value, tags)

    def set(self, value: float, tags: Tags) -> None:
        assert set(tags) == set(self._tag_keys)
        assert tags["model_name"] == "demo"
        published[self._name, tags.get("encoder")].append(value)


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    published.clear()
    monkeypatch.setattr(metrics, "Counter", Metric)
    monkeypatch.setattr(metrics, "Gauge", Metric)


def state(done: int, failed: int, work: list[BatchStats], waiting: list[int]) -> RunState:
    return RunState(done, failed, 0, tuple(work), tuple(waiting), len(work), len(work))


def work(frames: int, capacity: int, busy_s: float, room_s: float) -> BatchStats:
    return BatchStats(frames=frames, capacity=capacity, busy_s=busy_s, room_s=room_s)


def test_counters_grow_by_what_was_done_since_the_last_call() -> None:
    run = RunMetrics("demo")
    run.record(state(3, 1, [work(10, 16, 1, 2), work(0, 0, 0, 0)], [0, 0]))
    run.record(state(3, 2, [work(25, 32, 2, 4), work(5, 16, 1, 1)], [0, 0]))
    assert published["rayclip_videos", None] == [3]
    assert published["rayclip_failures", None] == [1, 1]
    assert published["rayclip_frames", "0"] == [10, 15]
    assert published["rayclip_frames", "1"] == [5]


def test_gauges_describe_the_time_since_the_last_call() -> None:
    run = RunMetrics("demo")
    run.record(state(0, 0, [work(8, 16, 1, 2)], [640]))
    run.record(state(0, 0, [work(24, 32, 2, 12)], [64]))
    run.record(state(0, 0, [work(24, 32, 2, 12)], [0]))
    assert published["rayclip_batch_fill", "0"] == [0.5, 1.0, 0.0]
    assert published["rayclip_encoder_busy", "0"] == [0.5, 0.1, 0.0]
    assert published["rayclip_queue_frames", "0"] == [640, 64, 0]
