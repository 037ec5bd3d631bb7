"""Measure how close each precision is to fp32, and its cost per frame on this CPU.

    python scripts/benchmarks/measure_precision.py            # about 10 minutes, mostly compilation
    python scripts/benchmarks/measure_precision.py demo RN50  # only these

ViT-B/32 and RN50 have random weights of tests/checkpoints.py, since official ones are a download:
their costs are real, their cosines only a hint. The demo model has trained weights. Costs are the
CPU time of one thread in the best of several rounds, in which all modes take turns.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rayclip.model.loaded_model import LoadedModel
from rayclip.model.loading import load_spec
from rayclip.model.models import CustomWeights, describe
from rayclip.model.preprocess import Resizing, resize

sys.path.append(str(Path(__file__).parents[1]))  # the modules that all scripts share
sys.path.append(str(Path(__file__).parents[2] / "tests"))

import checkpoints
from shapes import random_picture
from tables import number, table

FRAMES = 64
ROUNDS = 2
CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16")


class Mode(NamedTuple):
    """A way to compute features: precision, compiled or not, frames per pass."""

    precision: Any
    compile: bool
    batch_size: int

    def __str__(self) -> str:
        name = f"{self.precision} + compile" if self.compile else self.precision
        return f"{name}, batch {self.batch_size}"


FP32 = Mode("fp32", False, 64)
MODES = {
    "ViT-B/32": [
        FP32,
        Mode("fp32", False, 1),
        Mode("fp32", False, 16),
        Mode("fp32", True, 64),
        Mode("bf16", False, 16),
        Mode("bf16", False, 64),
        Mode("bf16", True, 64),
        Mode("fp16", False, 16),
    ],
    "RN50": [
        FP32,
        Mode("fp32", False, 16),
        Mode("bf16", False, 16),
        Mode("bf16", True, 16),
        Mode("fp16", False, 16),
    ],
    "demo": [
        FP32,
        Mode("fp32", True, 64),
        Mode("bf16", False, 64),
        Mode("bf16", True, 64),
        Mode("fp16", False, 64),
        Mode("fp16", True, 64),
    ],
}


def main() -> None:
    """Print a table for each model."""
    flags = set(
        Path("/proc/cpuinfo").read_text().partition("\nflags")[2].partition("\n")[0].split()
    )
    present = [feature for feature in CPU_FEATURES if feature in flags]
    print(f"torch {torch.__version__}, CPU with {', '.join(present)}; {FRAMES} pictures\n")
    for name in sys.argv[1:] or MODES:
        print(f"{name}\n\n{_report(name, MODES[name])}\n", flush=True)


def _report(name: str, modes: list[Mode]) -> str:
    models = dict(_loaded(name, modes))
    frames = pictures(models[FP32].n_px)
    features: dict[Mode, NDArray[np.float32]] = {}
    costs = {mode: float("inf") for mode in modes}
    for _ in range(ROUNDS):
        for mode, model in models.items():
            started = time.process_time()
            features[mode] = model.encode_image(frames)
            costs[mode] = min(costs[mode], (time.process_time() - started) * 1000 / FRAMES)
    expected = features[FP32]
    rows = [
        [
            str(mode),
            number(costs[mode], 1 if costs[mode] >= 10 else 2),
            number(costs[FP32] / costs[mode]),
            number(min_cosine(features[mode], expected), 6),
            number(min_cosine(centred(features[mode]), centred(expected)), 6),
        ]
        for mode in modes
    ]
    header = ["", "CPU ms/frame", "speedup", "min cosine", "min centred cosine"]
    return table(header, rows)


def _loaded(name: str, modes: list[Mode]) -> Iterator[tuple[Mode, LoadedModel]]:
    with TemporaryDirectory() as folder:
        if name == "demo":
            spec = describe("demo")
        else:
            make = {"ViT-B/32": checkpoints.vit_b_32, "RN50": checkpoints.resnet_50}[name]
            checkpoint = checkpoints.save_state_dict(make(), Path(folder) / "random.pt")
            spec = describe("custom", CustomWeights(str(checkpoint)))
        for mode in modes:
            yield mode, load_spec(spec, "cpu", mode.batch_size, 1, mode.precision, mode.compile)


def pictures(n_px: int) -> NDArray[np.uint8]:
    """Squares of drawn pictures: uint8 ``[64, n_px, n_px, 3]``."""
    rng = np.random.default_rng(0)
    pictures = [random_picture(rng)[0] for _ in range(FRAMES)]
    return np.stack([resize(np.asarray(picture), Resizing(n_px)) for picture in pictures])


def centred(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """The features less their mean."""
    return features - features.mean(axis=0)


def min_cosine(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """The lowest cosine between two rows of the same number."""
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(axis=1) / lengths).min())


if __name__ == "__main__":
    main()
