"""The models of a run on one device: a batcher for each, which share the device's passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from threading import Lock

from rayclip.actors.batcher import Batcher
from rayclip.actors.messages import Features, Frame
from rayclip.actors.passes import Passes
from rayclip.io.crash_log import CrashLog
from rayclip.model.loaded_model import LoadedModel
from rayclip.model.preprocess import Resizing
from rayclip.model.squares import squares_of
from rayclip.report.run_stats import BatchStats


class DeviceBatchers:
    """Encodes frames with several models, each with batches of its own fixed shape.

    Attributes:
        ready: the loaded models, or what loading them raised.
    """

    def __init__(
        self,
        resizings: Sequence[Resizing],
        load: Callable[[], Sequence[LoadedModel]],
        crash_log: CrashLog | None,
    ) -> None:
        """Start loading the models.

        Args:
            resizings: of each model.
            load: loads all models.
            crash_log: of this process; None without one.
        """
        self.ready: Future[Sequence[LoadedModel]] = Future()
        self._resizings = resizings
        self._load: Callable[[], Sequence[LoadedModel]] | None = load
        self._loading = Lock()
        passes = Passes()
        self._batchers = [
            Batcher(partial(self._model, number), crash_log=crash_log, passes=passes)
            for number in range(len(resizings))
        ]

    def submit(
        self, frames: Sequence[Frame], models: Sequence[int], chunk_id: str = ""
    ) -> list[Future[Features]]:
        """Queue a chunk, and return the futures of each model's features, float32 ``[n, D]``.

        Args:
            frames: at least one, each with the squares of these models.
            models: numbers of the models.
            chunk_id: does not change on a retry.
        """
        squares = squares_of(tuple(self._resizings[model] for model in models))
        return [
            self._batchers[model].submit(
                [squares.view(frame, position) for frame in frames],
                f"{chunk_id}.{model}" if chunk_id and model else chunk_id,
            )
            for position, model in enumerate(models)
        ]

    def flush(self) -> None:
        """Let no batch wait for more frames than there are: somebody waits for them."""
        for batcher in self._batchers:
            batcher.flush()

    @property
    def waiting(self) -> int:
        """Number of frames that were submitted and have no features yet, of all models."""
        return sum(batcher.waiting for batcher in self._batchers)

    @property
    def stats(self) -> BatchStats:
        """What the models did; they share the time of the device."""
        work = [batcher.stats for batcher in self._batchers]
        room_s, wall_s = (max(one.room_s for one in work), max(one.wall_s for one in work))
        return replace(sum(work, BatchStats()), room_s=room_s, wall_s=wall_s)

    def abort(self) -> None:
        """Encode nothing more."""
        for batcher in self._batchers:
            batcher.abort()

    def _model(self, number: int) -> LoadedModel:
        """Return a model; the first batcher that asks loads all of them."""
        with self._loading:
            if self._load is not None:
                load, self._load = self._load, None  # it may hold a checkpoint
                try:
                    self.ready.set_result(load())
                except Exception as error:
                    self.ready.set_exception(error)
        return self.ready.result()[number]
