"""The parts of ``bench.py gpu``: each yields rows, and runs in a process of its own.

    python bench_gpu_parts.py PART FILE SECONDS MODEL...

Rows are appended to FILE as JSON lines when they are known, so a part that dies keeps them.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from rayclip.actors.batcher import Batcher
from rayclip.model.loaded_model import LoadedModel
from rayclip.model.openai import as_network
from rayclip.model.precision import gpu_batch_size, largest_that_fits, peak_bytes_per_frame

sys.path.append(str(Path(__file__).parents[1]))  # the modules that all scripts share

from bench_encode import CHUNK_FRAMES, DEMO, FORWARD, GPU_BATCH_SIZE, job_of, model_named
from bench_forward import (
    HALF_PRECISIONS,
    clip_on,
    features_of,
    flops_per_frame,
    forward_rate,
    matrix_rate,
    nearly_full,
)
from bench_pipeline import ALONE, RAYCLIP, TWO, PipelineJob, clips_of, decode, rounds_of
from bench_videos import make_videos
from measure_precision import centred, min_cosine

BATCH_SIZES = (16, 32, 64, 128, 256, 512, 1024)
TOO_LARGE = {"cuda": 4096, "cpu": 64}  # frames per pass, for a device that is nearly full
MAX_REASON = 100  # characters
LOOP_S = 5.0  # of the forward loop in a comparison with whole runs
RUN_S = 4.0  # what a run should take at the speed of the forward loop
CLIP_FRAMES = 500
CLIPS_PER_CORE = 32
CLIP_SECONDS, CLIP_SIZE, CLIP_FPS = 10.0, (854, 480), 5


class Row(NamedTuple):
    """A number, or the reason why there is none."""

    what: str
    value: float | None
    unit: str
    note: str = ""


Value = float | tuple[float, str]
"""A number, and what there is to say about it."""
Rows = Iterator[Row]


@dataclass(frozen=True)
class PartJob:
    """What to measure.

    Attributes:
        models: the most important first.
        seconds: no row is begun later than this after ``started``.
        started: by the monotonic clock.
    """

    models: Sequence[str]
    seconds: float
    started: float = field(default_factory=time.monotonic)

    @property
    def device(self) -> str:
        return "cuda" if torch.cuda.is_available() else "cpu"

    def row(self, what: str, unit: str, measure: Callable[..., Value], *args: Any) -> Row:
        """Measure if there is time; any failure is a row."""
        if time.monotonic() - self.started > self.seconds:
            return Row(what, None, unit, "skipped: no time left")
        try:
            measured = measure(*args)
        except Exception as error:  # any exception of torch, its compilers and the commands
            text = " ".join(str(error).split())[:MAX_REASON]
            return Row(what, None, unit, f"{type(error).__name__}: {text}")
        finally:
            gc.collect()  # models are in reference cycles, and the next one needs their memory
            torch.cuda.empty_cache()
        value, note = measured if isinstance(measured, tuple) else (measured, "")
        return Row(what, value, unit, note)


def forward(job: PartJob) -> Rows:
    """The forward loop of every model, against a matrix product."""
    for precision in HALF_PRECISIONS:
        yield job.row(f"matrix product, {precision}", "TFLOP/s", _tera, precision, job.device)
    yield from _loops(job, is_compiled=False)


def compiled(job: PartJob) -> Rows:
    """The same, compiled."""
    yield from _loops(job, is_compiled=True)


def _loops(job: PartJob, is_compiled: bool) -> Rows:
    for name in job.models:
        for precision in HALF_PRECISIONS:
            args = (name, precision, job.device, is_compiled)
            yield job.row(f"{name}, {precision}", "frames/s", _share, *args)


def _tera(precision: str, device: str) -> float:
    return matrix_rate(precision, device) / 1e12


def _share(name: str, precision: str, device: str, is_compiled: bool) -> Value:
    rates = []

    def measure(batch_size: int) -> None:
        rates.append(forward_rate(name, precision, device, batch_size, is_compiled))

    batch_size, _ = largest_that_fits(measure, GPU_BATCH_SIZE)
    share = rates[-1] * flops_per_frame(name) / matrix_rate(precision, device)
    return rates[-1], f"{share:.0%} of the matrix product, batches of {batch_size}"


def batches(job: PartJob) -> Rows:
    """The forward loop in fp16 with batches of different sizes."""
    for name in job.models[:2]:
        for size in BATCH_SIZES:
            what = f"{name}, batches of {size}"
            yield job.row(what, "frames/s", forward_rate, name, "fp16", job.device, size)


def cosine(job: PartJob) -> Rows:
    """Features in half precision against those in fp32, of drawn pictures."""
    for name in dict.fromkeys([DEMO, *job.models[:2]]):
        for precision in HALF_PRECISIONS:
            yield job.row(f"{name}, {precision}", "cosine", _cosine, name, precision, job.device)


def _cosine(name: str, precision: str, device: str) -> Value:
    ours, theirs = (features_of(name, one, device) for one in (precision, "fp32"))
    without_mean = min_cosine(centred(ours), centred(theirs))
    return min_cosine(ours, theirs), f"the lowest of {len(ours)}; centred {without_mean:.6f}"


def memory(job: PartJob) -> Rows:
    """The memory of a GPU that each model takes with the batches that rayclip chooses."""
    for name in job.models:
        yield job.row(name, "GiB", _peak, name)


def _peak(name: str) -> Value:
    model = clip_on(name, "fp16", "cuda")
    total = torch.cuda.get_device_properties(0).total_memory
    size = gpu_batch_size(total, peak_bytes_per_frame(model.visual))
    torch.cuda.reset_peak_memory_stats()
    n_px = model.visual.input_resolution
    LoadedModel(as_network(model), size).encode_image(np.zeros((4 * size, n_px, n_px, 3), np.uint8))
    return torch.cuda.max_memory_reserved() / 2**30, f"fp16, batches of {size}"


def out_of_memory(job: PartJob) -> Rows:
    """rayclip's batcher on a device that is nearly full."""
    yield job.row(job.models[0], "frames a pass", _halved, job.models[0], job.device)


def _halved(name: str, device: str) -> Value:
    model = clip_on(name, "auto", device)
    n_px = model.visual.input_resolution
    chunk = list(
        np.random.default_rng(0).integers(256, size=(CHUNK_FRAMES, n_px, n_px, 3), dtype="u1")
    )
    with nearly_full(model, device):
        batcher = Batcher(lambda: LoadedModel(as_network(model), TOO_LARGE[device]))
        futures = [batcher.submit(chunk) for _ in range(TOO_LARGE[device] // CHUNK_FRAMES + 1)]
        features = [future.result() for future in futures]
    same = all(np.array_equal(features[0], other) for other in features)
    equal = "equal" if same else "NOT equal"
    note = f"of {TOO_LARGE[device]}; features of the same frames are {equal}"
    return batcher.ready.result().batch_size, note


def synthetic(job: PartJob) -> Rows:
    """Whole runs over the forward loop, if frames cost nothing to decode."""
    name = job.models[0]
    rate = forward_rate(name, "fp16" if job.device == "cuda" else "fp32", job.device, 64)
    clips = max(4, round(rate * RUN_S / CLIP_FRAMES))
    with _pipeline(name, [Path("synthetic.mp4")], clips, CLIP_FRAMES) as pipeline:
        yield from _runs(job, pipeline, (FORWARD, ALONE, RAYCLIP, TWO))


def decoding(job: PartJob) -> Rows:
    """Whole runs over the forward loop, with real videos."""
    name, clips = job.models[0], CLIPS_PER_CORE * (os.cpu_count() or 1)
    with TemporaryDirectory() as folder:
        videos = make_videos(Path(folder), CLIP_SIZE, CLIP_SECONDS, ["h264_gop250"])
        with _pipeline(name, videos, clips) as pipeline:
            yield from _runs(job, pipeline, (FORWARD, ALONE, RAYCLIP))
        with _pipeline(name, videos, 4) as few:
            yield job.row("decode alone", "CPU ms/frame", lambda: decode(few).cpu_ms)


@contextmanager
def _pipeline(
    name: str, sources: Sequence[Path], clips: int, synthetic_frames: int | None = None
) -> Iterator[PipelineJob]:
    with TemporaryDirectory() as folder:
        model = model_named(name, Path(folder))
        links = clips_of(sources, clips, Path(folder, "clips"))
        encode = job_of(model, None, "auto", LOOP_S)
        yield PipelineJob(encode, model, links, Fraction(CLIP_FPS), synthetic_frames)


def _runs(job: PartJob, pipeline: PipelineJob, ways: Sequence[str]) -> Rows:
    """Each way without its start, and the first as the limit of the others."""
    limit: float | None = None
    for way in ways:
        row = job.row(way, "frames/s", _run, pipeline, way, limit)
        limit = limit or row.value
        yield row


def _run(pipeline: PipelineJob, way: str, limit: float | None) -> Value:
    (done,) = rounds_of(pipeline, [way], 1)
    work = done[way].work
    rate = work.frames / work.wall_s
    if limit is None:
        return rate
    cores = limit * work.cpu_ms / 1000
    return rate, f"{rate / limit:.2f} of the limit, which would take {cores:.0f} cores"


PARTS: Mapping[str, Callable[[PartJob], Rows]] = {
    part.__name__: part
    for part in (forward, synthetic, decoding, batches, memory, out_of_memory, cosine, compiled)
}
"""Name -> part."""


def main(part: str, file: str, seconds: str, *models: str) -> None:
    with open(file, "a") as rows:
        for row in PARTS[part](PartJob(models, float(seconds))):
            print(json.dumps(row), file=rows, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
