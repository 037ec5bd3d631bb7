"""Prometheus metrics of a run, on Ray's own endpoint (which needs ``ray[default]``)."""

from __future__ import annotations

from collections.abc import Sequence

from ray.util.metrics import Counter, Gauge

from rayclip.report.run_stats import BatchStats, RunState

PERIOD_S = 5.0


class RunMetrics:
    """Publishes the progress of a run.

    Counters only grow; gauges describe the time since the last call. All are tagged with the
    model's name, those of encoders also with the encoder's number.
    """

    def __init__(self, model_name: str) -> None:
        model = self._model = {"model_name": model_name}
        per_run, per_encoder = tuple(model), (*model, "encoder")
        self._videos = Counter("rayclip_videos", "Videos done.", per_run)
        self._failures = Counter("rayclip_failures", "Videos failed.", per_run)
        self._frames = Counter("rayclip_frames", "Frames encoded.", per_encoder)
        self._fill = Gauge("rayclip_batch_fill", "Share of batches filled, 0 to 1.", per_encoder)
        self._busy = Gauge("rayclip_encoder_busy", "Share of time in passes, 0 to 1.", per_encoder)
        self._queue = Gauge("rayclip_queue_frames", "Frames waiting in an encoder.", per_encoder)
        self._done = self._failed = 0
        self._work: Sequence[BatchStats] = ()

    def record(self, state: RunState) -> None:
        """Publish what was done since the last call."""
        _grow(self._videos, state.done - self._done, self._model)
        _grow(self._failures, state.failed - self._failed, self._model)
        before, self._work = self._work, state.encoders
        self._done, self._failed = state.done, state.failed
        for number, (now, waiting) in enumerate(zip(state.encoders, state.waiting, strict=True)):
            tags = {**self._model, "encoder": str(number)}
            recent = now - before[number] if number < len(before) else now
            _grow(self._frames, recent.frames, tags)
            self._fill.set(recent.fill, tags)
            self._busy.set(recent.busy, tags)
            self._queue.set(waiting, tags)


def _grow(counter: Counter, by: int, tags: dict[str, str]) -> None:
    if by:  # Ray refuses to add zero
        counter.inc(by, tags)
