"""The encoders of the worker process: the models on each device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import partial

from rayclip.actors.device_batchers import DeviceBatchers
from rayclip.actors.device_faults import first_line, is_out_of_memory
from rayclip.actors.encoder import EncoderSettings, load_encoder_models
from rayclip.actors.flow_control import CHUNK_BYTES, budget_bytes
from rayclip.actors.messages import Features, Frame
from rayclip.errors import RunStopped
from rayclip.io.crash_log import CrashLog
from rayclip.model.loaded_model import LoadedModel
from rayclip.report.run_stats import BatchStats


@dataclass(frozen=True, eq=False)
class LocalPending:
    """The features of a chunk, by each of its models."""

    futures: Sequence[Future[Features]]
    device: DeviceBatchers

    def done(self) -> bool:
        return all(future.done() for future in self.futures)

    def result(self) -> list[Features | Exception]:
        """Wait for the features of each model, or why it has none."""
        if not self.done():
            self.device.flush()
        return [_outcome(future) for future in self.futures]


def _outcome(future: Future[Features]) -> Features | Exception:
    error = future.exception()
    return error if isinstance(error, Exception) else future.result()


class LocalEncoders:
    """Encodes each chunk on the device with the fewest frames outstanding."""

    def __init__(
        self,
        devices: Sequence[Sequence[EncoderSettings]],
        crash_log: CrashLog | None,
        is_restart: bool,
    ) -> None:
        """Start loading the models on each device.

        Args:
            devices: for each, its models.
            crash_log: of this process, which ends if a device fails; None without one.
            is_restart: whether to try each device: a process has died, maybe with its device.
        """
        load = _load_and_try if is_restart else load_encoder_models
        self._devices = [
            DeviceBatchers(
                [model.spec.resizing for model in models], partial(load, models), crash_log
            )
            for models in devices
        ]
        self._notes: tuple[str, ...] = ()

    def wait_until_loaded(self) -> list[LoadedModel]:
        """Wait until the models are loaded wherever they can be; other devices are not used.

        Returns:
            All models of the first device, then those of the second, and so on.

        Raises:
            RunStopped: they cannot be loaded anywhere.
        """
        models: list[LoadedModel] = []
        loaded: list[DeviceBatchers] = []
        errors: list[RunStopped] = []
        for device in self._devices:
            try:
                models += device.ready.result()
            except RunStopped as error:
                errors.append(error)
            else:
                loaded.append(device)
        if not models:
            raise errors[0]
        self._devices = loaded
        self._notes = tuple(f"A device is not used. {error}" for error in errors)
        return models

    def submit(self, frames: list[Frame], models: Sequence[int]) -> LocalPending:
        device = min(self._devices, key=lambda device: device.waiting)
        return LocalPending(device.submit(frames, models), device)

    def wait(self, pending: Sequence[LocalPending]) -> Sequence[LocalPending]:
        while not (done := [features for features in pending if features.done()]):
            futures = [future for features in pending for future in features.futures]
            wait([future for future in futures if not future.done()], None, FIRST_COMPLETED)
        return done

    def window_bytes(self, extractors: int) -> int:
        """How many bytes of frames each of this many extractors may have in flight."""
        budget = len(self._devices) * budget_bytes(math.inf)
        return max(CHUNK_BYTES, budget // extractors)

    @property
    def work(self) -> tuple[BatchStats, ...]:
        """Statistics of each device."""
        first, *others = [device.stats for device in self._devices]
        return first + BatchStats(notes=self._notes), *others

    @property
    def waiting(self) -> tuple[int, ...]:
        """Frames outstanding at each device."""
        return tuple(device.waiting for device in self._devices)

    def abort(self) -> None:
        """Encode nothing more."""
        for device in self._devices:
            device.abort()


def _load_and_try(models: Sequence[EncoderSettings]) -> list[LoadedModel]:
    """Load the models, and encode a frame: videos must not be blamed for a broken device."""
    loaded = load_encoder_models(models)
    try:
        for model in loaded:
            model.encode_image(model.black_frames(1))
    except Exception as error:
        if not is_out_of_memory(error):
            raise RunStopped(f"No encoder is left: {first_line(error)}") from error
    return loaded
