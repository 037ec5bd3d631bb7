"""The encoders of the worker process: a batcher for each device."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from functools import partial

import numpy as np

from rayclip.actors.batcher import Batcher
from rayclip.actors.device_faults import first_line, is_out_of_memory
from rayclip.actors.encoder import EncoderSettings, load_encoder_model
from rayclip.actors.flow_control import CHUNK_BYTES, budget_bytes
from rayclip.actors.messages import Features, Frame
from rayclip.errors import RunStopped
from rayclip.io.crash_log import CrashLog
from rayclip.model.loaded_model import LoadedModel
from rayclip.report.run_stats import BatchStats


class LocalEncoders:
    """Encodes each chunk on the device with the fewest frames outstanding."""

    def __init__(
        self, settings: Sequence[EncoderSettings], crash_log: CrashLog, is_restart: bool
    ) -> None:
        """Start loading the model on each device.

        Args:
            settings: for each device.
            crash_log: of this process, which ends if a device fails.
            is_restart: whether to try each device: a process has died, maybe with its device.
        """
        load = _load_and_try if is_restart else load_encoder_model
        self._batchers = [Batcher(partial(load, one), crash_log=crash_log) for one in settings]
        self._notes: tuple[str, ...] = ()

    def wait_until_loaded(self) -> list[LoadedModel]:
        """Wait until the model is loaded wherever it can be; other devices are not used.

        Raises:
            RunStopped: it cannot be loaded anywhere.
        """
        models: list[LoadedModel] = []
        loaded: list[Batcher] = []
        errors: list[RunStopped] = []
        for batcher in self._batchers:
            try:
                model = batcher.ready.result()
            except RunStopped as error:
                errors.append(error)
            else:
                assert isinstance(model, LoadedModel)
                models.append(model)
                loaded.append(batcher)
        if not models:
            raise errors[0]
        self._batchers = loaded
        self._notes = tuple(f"A device is not used. {error}" for error in errors)
        return models

    def submit(self, frames: list[Frame]) -> Future[Features]:
        return min(self._batchers, key=lambda batcher: batcher.waiting).submit(frames)

    def wait(self, pending: Iterable[Future[Features]]) -> Iterable[Future[Features]]:
        return self._batchers[0].wait(pending)

    def window_bytes(self, extractors: int) -> int:
        """How many bytes of frames each of this many extractors may have in flight."""
        budget = len(self._batchers) * budget_bytes(math.inf)
        return max(CHUNK_BYTES, budget // extractors)

    @property
    def work(self) -> tuple[BatchStats, ...]:
        """Statistics of each device."""
        first, *others = [batcher.stats for batcher in self._batchers]
        return first + BatchStats(notes=self._notes), *others

    @property
    def waiting(self) -> tuple[int, ...]:
        """Frames outstanding at each device."""
        return tuple(batcher.waiting for batcher in self._batchers)

    def abort(self) -> None:
        """Encode nothing more."""
        for batcher in self._batchers:
            batcher.abort()


def _load_and_try(settings: EncoderSettings) -> LoadedModel:
    """Load the model, and encode a frame: videos must not be blamed for a broken device."""
    model = load_encoder_model(settings)
    try:
        model.encode_image(np.zeros((1, model.n_px, model.n_px, 3), np.uint8))
    except Exception as error:
        if not is_out_of_memory(error):
            raise RunStopped(f"No encoder is left: {first_line(error)}") from error
    return model
