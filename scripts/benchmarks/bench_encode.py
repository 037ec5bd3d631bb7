"""The cost of encoding: the model alone on tensors, and rayclip's layers around it."""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from bench_processes import Work, total_cpu_s
from numpy.typing import NDArray
from tables import number, table

from rayclip.actors.encoder import EncoderSettings, load_encoder_model
from rayclip.actors.job import Encoders
from rayclip.errors import UsageError
from rayclip.local.devices import LocalEncoders
from rayclip.model.checkpoint import openai_clip, openai_models, without_warnings
from rayclip.model.models import CustomWeights, describe
from rayclip.model.precision import CPU_BATCH_SIZE, set_precision
from rayclip.model_options import Precision
from rayclip.session.ray_session import ray_session
from rayclip.session.resources import cpu_resources
from rayclip.settings import Settings

SMALL, DEMO = "small", "demo"
SHAPES: Mapping[str, tuple[Any, ...]] = {
    SMALL: (64, 224, 2, 128, 32, 77, 49408, 64, 1, 2),
    "ViT-B/32": (512, 224, 12, 768, 32, 77, 49408, 512, 8, 12),
    "ViT-L/14": (768, 224, 24, 1024, 14, 77, 49408, 768, 12, 12),
    "RN50": (1024, 224, (3, 4, 6, 3), 64, None, 77, 49408, 512, 8, 12),
    "ViT-B/16": (512, 224, 12, 768, 16, 77, 49408, 512, 8, 12),
    "ViT-L/14@336px": (768, 336, 24, 1024, 14, 77, 49408, 768, 12, 12),
    "RN101": (512, 224, (3, 4, 23, 3), 64, None, 77, 49408, 512, 8, 12),
    "RN50x4": (640, 288, (4, 6, 10, 6), 80, None, 77, 49408, 640, 10, 12),
    "RN50x16": (768, 384, (6, 8, 18, 8), 96, None, 77, 49408, 768, 12, 12),
    "RN50x64": (1024, 448, (3, 15, 36, 10), 128, None, 77, 49408, 1024, 16, 12),
}
"""Model name -> arguments of OpenAI's ``CLIP``; its weights are random. Small is ours;
the others are OpenAI's, those that are used most first."""
GPU_BATCH_SIZE = 256
ONE = (0,)  # the number of the only model
CHUNK_FRAMES = 64  # that tasks send together, of 224 pixels and less
GPU_PASSES = 2  # concurrent, so that the next one is ready on the device
FORWARD, MODEL, BATCHER, ACTOR = "forward loop", "ClipModel", "batcher", "encoder actor"
EXPLANATION = """\
{forward}: the model's forward pass on a float tensor of {batch} frames, {passes} at once: the
limit. {model}: the same from uint8. {batcher}: fed with chunks of {chunk} frames. {actor}: fed by a
process through a private Ray.
CPU: user and system, of all processes including Ray's, without loading and startup. {rounds}."""


@dataclass(frozen=True)
class EncodeJob:
    """What to measure.

    Attributes:
        encoder: the model, its device and its batch size.
        passes: concurrent forward passes, as many as rayclip runs on this machine.
        seconds: how long frames are submitted; frames in flight are then finished.
    """

    encoder: EncoderSettings
    passes: int
    seconds: float

    @property
    def batch_size(self) -> int:
        assert self.encoder.batch_size is not None
        return self.encoder.batch_size

    def frames(self, count: int) -> NDArray[np.uint8]:
        n_px = self.encoder.spec.n_px
        return np.random.default_rng(0).integers(256, size=(count, n_px, n_px, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Model:
    """A model as given on the command line: ``model_name`` and ``weights``."""

    model_name: str
    weights: str | None


def model_named(name: str, folder: Path) -> Model:
    """Write random weights for this model to the folder.

    Raises:
        UsageError: the model is unknown.
    """
    if name == DEMO:
        return Model(DEMO, None)
    if name not in SHAPES:
        raise UsageError(f"--model must be one of {', '.join([DEMO, *SHAPES])}, not {name}.")
    path = folder / "random.pt"
    torch.save(random_clip(name).state_dict(), path)
    return Model("custom", str(path))


def random_clip(name: str, device: str = "cpu") -> Any:
    """OpenAI's ``CLIP`` of one of :data:`SHAPES`, in the precision of its files."""
    models = openai_models()
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        drawn = models.CLIP(*SHAPES[name])
    models.convert_weights(drawn)
    return drawn.eval()


def job_of(model: Model, batch_size: int | None, precision: Precision, seconds: float) -> EncodeJob:
    """The settings of ``rayclip extract`` on this machine, for all encoders together."""
    on_gpu = torch.cuda.is_available()
    resources = cpu_resources([os.cpu_count() or 1], None)
    encoder = EncoderSettings(
        describe(model.model_name, CustomWeights(model.weights)),
        "cuda" if on_gpu else "cpu",
        batch_size or (GPU_BATCH_SIZE if on_gpu else CPU_BATCH_SIZE),
        None if on_gpu else resources.threads,
        precision,
    )
    passes = GPU_PASSES if on_gpu else resources.encoders * (resources.threads or 1)
    return EncodeJob(encoder, passes, seconds)


class ForwardLoop:
    """OpenAI's model, and nothing around it."""

    def __init__(self, job: EncodeJob) -> None:
        self._job = job
        checkpoint = job.encoder.spec.checkpoint
        with without_warnings():
            self._model, _ = openai_clip().load(checkpoint, device=job.encoder.device)
        set_precision(self._model, job.encoder.precision)
        n_px = job.encoder.spec.n_px
        pixels = torch.randn(job.batch_size, 3, n_px, n_px, device=job.encoder.device)
        self._pixels = pixels.to(memory_format=torch.channels_last)  # the memory layout of pictures

    def measure(self) -> Work:
        return _run_concurrently(self._pass, self._job.passes, self._job.seconds)

    def _pass(self) -> int:
        with torch.inference_mode():
            return len(self._model.encode_image(self._pixels).float().cpu())


class WholeModel:
    """rayclip's model, from uint8 frames."""

    def __init__(self, job: EncodeJob) -> None:
        self._job = job
        self._model = load_encoder_model(replace(job.encoder, threads=job.passes))
        self._frames = job.frames(job.batch_size)

    def measure(self) -> Work:
        passes = self._job.passes
        return _run_concurrently(
            lambda: len(self._model.encode_image(self._frames)), passes, self._job.seconds
        )


class FedBatcher:
    """rayclip's batcher, in this process."""

    def __init__(self, job: EncodeJob) -> None:
        self._job = job
        encoder = replace(job.encoder, threads=job.passes)
        self._encoders = LocalEncoders([[encoder]], None, is_restart=False)
        self._encoders.wait_until_loaded()

    def measure(self) -> Work:
        return _feed(self._encoders, self._job)


class FedActors:
    """rayclip's encoder actors, in a private Ray that only lives during a measurement.

    A process can start one private Ray, so each measurement has its own process.
    """

    def __init__(self, job: EncodeJob) -> None:
        self._job = job

    def measure(self) -> Work:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            return process.submit(_feed_actors, self._job).result()


def _feed_actors(job: EncodeJob) -> Work:
    with ray_session("local", None, verbose=False) as private:
        import ray

        from rayclip.actors.control_actor import start_control_actor
        from rayclip.actors.encoder_client import EncoderClient
        from rayclip.session.devices import device_on_ray

        _, resources = device_on_ray(Settings(), private)
        pool = start_control_actor([job.encoder], resources)
        ray.get(pool.encoders.remote())
        return _feed(EncoderClient(pool), job)


def _run_concurrently(work: Callable[[], int], passes: int, seconds: float) -> Work:
    """Repeat the work on this many threads, each with one CPU thread."""

    def until(deadline: float) -> int:
        frames = work()
        while time.perf_counter() < deadline:
            frames += work()
        return frames

    with ThreadPoolExecutor(passes, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        list(threads.map(until, [0.0] * passes))  # warm up allocations and kernels
        with _measuring() as taken:
            frames = sum(threads.map(until, [time.perf_counter() + seconds] * passes))
    return taken(frames)


def _feed(encoders: Encoders, job: EncodeJob) -> Work:
    """Submit chunks, and keep enough of them in flight for the next passes."""
    chunk = list(job.frames(CHUNK_FRAMES))
    ahead = max(2, math.ceil(2 * job.batch_size * job.passes / CHUNK_FRAMES))
    encoders.submit(chunk[: job.batch_size], ONE).result()  # warm up
    with _measuring() as taken:
        in_flight = deque(encoders.submit(chunk, ONE) for _ in range(ahead))
        deadline = time.perf_counter() + job.seconds
        frames = 0
        while in_flight:
            (features,) = in_flight.popleft().result()
            frames += len(features)
            if time.perf_counter() < deadline:
                in_flight.append(encoders.submit(chunk, ONE))
    return taken(frames)


@contextmanager
def _measuring() -> Iterator[Callable[[int], Work]]:
    """Measure the block; yields a function that, after the block, turns frames into work."""
    cpu_s, started = total_cpu_s(), time.perf_counter()
    ended: list[float] = []
    yield lambda frames: Work(frames, ended[0], ended[1])
    ended += [time.perf_counter() - started, total_cpu_s() - cpu_s]


WAYS: Mapping[str, Callable[[EncodeJob], Any]] = {
    FORWARD: ForwardLoop,
    MODEL: WholeModel,
    BATCHER: FedBatcher,
    ACTOR: FedActors,
}
"""Row name -> class that is created once and measured in every round."""


def measured(job: EncodeJob, ways: Sequence[str], rounds: int) -> Iterator[dict[str, Work]]:
    """Yield the work of each way, in turn, in every round."""
    made = {way: WAYS[way](job) for way in ways}
    for _ in range(rounds):
        yield {way: made[way].measure() for way in ways}


def report(job: EncodeJob, rounds: Sequence[Mapping[str, Work]]) -> str:
    """The table and its explanation."""
    header = ["way", "frames", "frames/s", "CPU ms/frame", "speed/limit", "CPU/limit"]
    rows = []
    for way in rounds[0]:
        works = [works[way] for works in rounds]
        limits = [works[FORWARD] for works in rounds if FORWARD in works]
        pairs = list(zip(works, limits, strict=False))
        speed = median(limit.wall_ms / work.wall_ms for work, limit in pairs) if pairs else None
        cpu = median(work.cpu_ms / limit.cpu_ms for work, limit in pairs) if pairs else None
        rows.append(
            [
                way,
                str(sum(work.frames for work in works)),
                number(1000 / median(work.wall_ms for work in works), 1),
                number(median(work.cpu_ms for work in works)),
                number(speed, 3),
                number(cpu, 3),
            ]
        )
    return f"{table(header, rows)}\n\n{_explanation(job, len(rounds))}"


def _explanation(job: EncodeJob, rounds: int) -> str:
    return EXPLANATION.format(
        forward=FORWARD,
        model=MODEL,
        batcher=BATCHER,
        actor=ACTOR,
        batch=job.batch_size,
        passes=job.passes,
        chunk=CHUNK_FRAMES,
        rounds=f"Medians of {rounds} rounds" if rounds > 1 else "One round",
    )
