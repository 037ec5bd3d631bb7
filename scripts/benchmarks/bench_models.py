"""What a frame costs with each model: rayclip's passes on a CPU, with random weights."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from bench_encode import SHAPES
from bench_forward import clip_on
from tables import number, table

from rayclip.errors import UsageError
from rayclip.model import open_clip_tables
from rayclip.model.families import importing, to_square
from rayclip.model.loaded_model import LoadedModel
from rayclip.model.models import Network
from rayclip.model.openai import as_network
from rayclip.model.preprocess import Resizing

FIRST = "ViT-B/32"
MODELS = (
    FIRST,
    "ViT-B/16",
    "ViT-L/14",
    "open_clip:ViT-B-32-256",
    "open_clip:MobileCLIP-S2",
    "open_clip:ViT-B-16-SigLIP2",
    "timm:resnet50.a1_in1k",
    "timm:vit_small_patch14_dinov2.lvd142m@224",
    "timm:vit_small_patch14_dinov2.lvd142m",
)
HALF = (0.5, 0.5, 0.5)
EXPLANATION = """\
CPU: user and system, from uint8 squares to features in fp32, {batch} frames per pass on one thread.
The weights are random. {rounds}; the ratio is that of each round to the first row."""


@dataclass(frozen=True)
class Cost:
    """What was measured of a model.

    Attributes:
        n_px: side of its square input in pixels.
        dim: features per frame.
        cpu_ms: for a frame, in each round.
    """

    n_px: int
    dim: int
    cpu_ms: tuple[float, ...]


def random_model(name: str, batch_size: int) -> LoadedModel:
    """A model by its name in rayclip, for open_clip's without ``/TAG``.

    Raises:
        UsageError: there is none.
    """
    family, _, rest = name.partition(":")
    if family == "open_clip":
        n_px = to_square(
            open_clip_tables.architecture(rest)["vision_cfg"].get("image_size", 224), name
        )
        with importing(name):
            import open_clip
        visual = open_clip.create_model(rest).visual
    elif family == "timm":
        with importing(name):
            import timm
        rest, _, pixels = rest.partition("@")
        if not timm.is_model(rest):
            raise UsageError(f"timm has no model {rest}.")
        n_px = int(pixels or timm.get_pretrained_cfg(rest).input_size[1])
        visual = timm.create_model(rest, num_classes=0, **({"img_size": n_px} if pixels else {}))
    elif name in SHAPES:
        return LoadedModel(as_network(clip_on(name, "fp32", "cpu")), batch_size, threads=1)
    else:
        raise UsageError(f"--model must be one of {', '.join(SHAPES)}, or open_clip: or timm:.")
    return LoadedModel(_network(visual.eval(), n_px), batch_size, threads=1)


def _network(visual: Any, n_px: int) -> Network:
    with torch.inference_mode():
        dim = visual(torch.zeros(1, 3, n_px, n_px)).shape[1]
    return Network(visual, None, Resizing(n_px), dim, HALF, HALF, 1, torch.device("cpu"))


def measured(names: Sequence[str], batch_size: int, rounds: int) -> Iterator[dict[str, Cost]]:
    """Yield the costs after each round, in which every model runs in turn."""
    models = {name: random_model(name, batch_size) for name in names}
    passes = {name: partial(_pass, model) for name, model in models.items()}
    for encode in passes.values():
        encode()  # allocate
    spent: dict[str, tuple[float, ...]] = dict.fromkeys(names, ())
    for _ in range(rounds):
        for name, encode in passes.items():
            spent[name] += (1000 * encode() / batch_size,)
        yield {name: Cost(models[name].n_px, models[name].dim, spent[name]) for name in names}


def _pass(model: LoadedModel) -> float:
    """CPU seconds of a pass."""
    shape = (model.batch_size, model.n_px, model.n_px, 3)
    frames = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    started = time.process_time()
    model.encode_image(frames)
    return time.process_time() - started


def report(costs: Mapping[str, Cost], batch_size: int) -> str:
    """The table and its explanation."""
    first = next(iter(costs.values()))
    rows = []
    for name, cost in costs.items():
        ratio = median(one / other for one, other in zip(cost.cpu_ms, first.cpu_ms, strict=True))
        ms = number(median(cost.cpu_ms), 1)
        rows.append([name, str(cost.n_px), str(cost.dim), ms, number(ratio, 1)])
    rounds = len(first.cpu_ms)
    explanation = EXPLANATION.format(
        batch=batch_size, rounds=f"Medians of {rounds} rounds" if rounds > 1 else "One round"
    )
    header = ["model", "pixels", "features", "CPU ms/frame", "ratio"]
    return f"{table(header, rows)}\n\n{explanation}"
