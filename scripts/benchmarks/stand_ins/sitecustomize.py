"""Stand-ins for decoding and encoding in a real ``rayclip extract``.

Python imports this module at startup if this folder is on PYTHONPATH: in the command, and in Ray's
workers, which inherit the variable. It patches rayclip's modules when they are imported, so that
rayclip itself needs no hook for it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, NamedTuple

FRAMES = os.environ.get("RAYCLIP_BENCH_SYNTHETIC_FRAMES")
"""Synthetic frames per video; videos are then not read."""
MICROSECONDS = os.environ.get("RAYCLIP_BENCH_FAKE_MICROSECONDS")
"""How long the encoder sleeps per frame, as if a device did the work."""
SIMULATED_GPUS = os.environ.get("RAYCLIP_BENCH_PRETENDED_GPUS")
"""Set if nodes declare GPUs that do not exist: their encoders compute on a CPU."""
PASSES_AT_ONCE = 2  # as on a GPU: one is prepared while another computes
DEVICE = threading.Lock()
FPS = 30.0


class ReadyFrame(NamedTuple):
    """A selected frame without pixels."""

    timestamps_ms: tuple[float, ...]

    def rgb(self) -> None:
        pass


def synthetic_decoding(decoder: ModuleType) -> None:
    """Make decoding tasks return synthetic frames."""

    @contextmanager
    def open_selected(*_: object) -> Iterator[Any]:
        times = ((number * 1000 / FPS,) for number in range(int(FRAMES or 0)))
        frames = (ReadyFrame(timestamps_ms) for timestamps_ms in times)
        yield decoder.FrameSelection(FPS, 0.0, frames)

    decoder.open_selected = open_selected


def synthetic_squares(squares: ModuleType) -> None:
    """Make decoding tasks send the same square for each frame."""

    @cache
    def square(n_px: int) -> Any:
        import numpy as np

        return np.random.default_rng(0).integers(256, size=(n_px, n_px, 3), dtype=np.uint8)

    squares.resize = lambda rgb, resizing: square(resizing.n_px)


def fake_encoding(loading: ModuleType) -> None:
    """Make forward passes sleep and return zeros, without loading a model or torch."""

    def encode_image(self: Any, images: Any) -> Any:
        import numpy as np

        with DEVICE:
            time.sleep(self.batch_size * float(MICROSECONDS or 0) / 1e6)
        return np.zeros((len(images), self.dim), np.float32)

    def load_spec(spec: Any, device: Any, batch_size: Any, *_: Any) -> Any:
        model = loading.LoadedModel.__new__(loading.LoadedModel)
        model.n_px, model.dim, model.device = spec.n_px, spec.dim, device
        model.batch_size = batch_size or loading.CPU_BATCH_SIZE
        model.passes_at_once, model.notes, model.logit_scale = PASSES_AT_ONCE, [], 1.0
        return model

    loading.LoadedModel.close = lambda self: None
    loading.LoadedModel.peak_bytes = 0
    loading.LoadedModel.encode_image = encode_image
    loading.load_spec = load_spec


def simulated_gpus(loading: ModuleType) -> None:
    """Load models for the CPU if they are requested for a GPU."""
    real = loading.load_spec

    def load_spec(spec: Any, device: Any, batch_size: Any, threads: Any, *more: Any) -> Any:
        return real(spec, "cpu", batch_size, threads or 1, *more)

    loading.load_spec = load_spec


Patch = Callable[[ModuleType], None]


class Patching(MetaPathFinder):
    """Finds some modules as Python does, and patches each one after it is loaded."""

    def __init__(self, patches: Mapping[str, Patch]) -> None:
        self._patches = patches

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self._patches:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _PatchingLoader(spec.loader, self._patches[name])
        return spec


class _PatchingLoader(Loader):
    def __init__(self, loader: Loader, patch: Patch) -> None:
        self._loader = loader
        self._patch = patch

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._patch(module)


def _patches() -> Iterator[tuple[str, Patch]]:
    if FRAMES is not None:
        yield "rayclip.actors.decoder", synthetic_decoding
        yield "rayclip.model.squares", synthetic_squares
    if MICROSECONDS is not None:
        yield "rayclip.model.loading", fake_encoding
    elif SIMULATED_GPUS is not None:
        yield "rayclip.model.loading", simulated_gpus


sys.meta_path.insert(0, Patching(dict(_patches())))
