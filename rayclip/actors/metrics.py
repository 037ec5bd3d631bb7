"""The figures of a run for Prometheus, on Ray's own endpoint (it needs ``ray[default]``)."""

from __future__ import annotations

from collections.abc import Sequence

from ray.util.metrics import Counter, Gauge

from rayclip.report.run_stats import BatchStats, RunState

PERIOD_S = 5.0


class RunMetrics:
    """Says how far a run is, whenever it is told.

    Counters only grow; gauges are about the time since they were set last. All are tagged with the
    model's name, those of encoders with their numbers, too.
    """

    def __init__(self, model_name: str) -> None:
        model = self._model = {"model_name": model_name}
        one, each = tuple(model), (*model, "encoder")
        self._videos = Counter("rayclip_videos", "Videos done.", one)
        self._failures = Counter("rayclip_failures", "Videos given up.", one)
        self._frames = Counter("rayclip_frames", "Frames encoded.", each)
        self._fill = Gauge("rayclip_batch_fill", "Share of batches that frames took, 0 to 1.", each)
        self._busy = Gauge("rayclip_encoder_busy", "Share of time in passes, 0 to 1.", each)
        self._queue = Gauge("rayclip_queue_frames", "Frames that wait for an encoder.", each)
        self._done = self._failed = 0
        self._work: Sequence[BatchStats] = ()

    def record(self, state: RunState) -> None:
        """Add what was done since the last call."""
        _grow(self._videos, state.done - self._done, self._model)
        _grow(self._failures, state.failed - self._failed, self._model)
        before, self._work = self._work, state.encoders
        self._done, self._failed = state.done, state.failed
        for number, (now, waiting) in enumerate(zip(state.encoders, state.waiting, strict=True)):
            tags = {**self._model, "encoder": str(number)}
            lately = now - before[number] if number < len(before) else now
            _grow(self._frames, lately.frames, tags)
            self._fill.set(lately.fill, tags)
            self._busy.set(lately.busy, tags)
            self._queue.set(waiting, tags)


def _grow(counter: Counter, by: int, tags: dict[str, str]) -> None:
    if by:  # Ray refuses to add nothing
        counter.inc(by, tags)
