"""What only a GPU can tell, in a limited time: runs the parts, and prints what they found."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from bench_encode import SHAPES, SMALL
from bench_gpu_parts import Row
from bench_processes import CommandFailed, run_command
from tables import number, table

HEADER = ["", "value", "unit", "note"]
WEIGHTS: Mapping[str, float] = {
    "forward": 4,
    "synthetic": 5,
    "decoding": 5,
    "batches": 1,
    "memory": 1,
    "out_of_memory": 1,
    "cosine": 1,
    "compiled": 4,  # last, since there is always one more model to compile
}
"""Part -> its share of the time; what a part does not need goes to those after it."""
SOFT = 0.85  # share of its time after which a part begins no row
MODELS = tuple(name for name in SHAPES if name != SMALL)
SCRIPT = str(Path(__file__).with_name("bench_gpu_parts.py"))


@dataclass(frozen=True)
class GpuJob:
    """What to measure.

    Attributes:
        models: the most important first.
        parts: keys of :data:`WEIGHTS`.
        minutes: how long all of it may take.
    """

    models: Sequence[str]
    parts: Sequence[str]
    minutes: float


@dataclass(frozen=True)
class Part:
    """What a part found, and in how many seconds."""

    name: str
    rows: list[Row]
    seconds: float


def measured(job: GpuJob) -> Iterator[Part]:
    """Run each part in its own process, which is killed if it takes longer than its share."""
    end = time.monotonic() + job.minutes * 60
    for place, name in enumerate(job.parts):
        started = time.monotonic()
        left = sum(WEIGHTS[part] for part in job.parts[place:])
        limit_s = max(0.0, end - started) * WEIGHTS[name] / left
        rows = _rows(name, job.models, limit_s)
        yield Part(name, rows, time.monotonic() - started)


def _rows(part: str, models: Sequence[str], limit_s: float) -> list[Row]:
    with TemporaryDirectory() as folder:
        file = Path(folder, "rows.jsonl")
        file.touch()
        words = [sys.executable, SCRIPT, part, str(file), str(limit_s * SOFT), *models]
        failure = []
        try:
            run_command(words, os.environ, limit_s)
        except CommandFailed as error:
            failure = [Row("the rest", None, "", str(error))]
        return [Row(*json.loads(line)) for line in file.read_text().splitlines()] + failure


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return {
        "gpu": "none" if gpu is None else f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB",
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "system": platform.platform(),
    }


def report(parts: Sequence[Part]) -> str:
    """The machine, the table, and how long each part took."""
    cells = [
        [f"{part.name}: {row.what}", number(row.value, _digits(row.value)), row.unit, row.note]
        for part in parts
        for row in part.rows
    ]
    first = ", ".join(f"{name} {value}" for name, value in machine().items())
    times = ", ".join(f"{part.name} {part.seconds:.0f} s" for part in parts)
    return f"{first}\n\n{table(HEADER, cells)}\n\n{times}"


def _digits(value: float | None) -> int:
    """Enough for cosines, none for frames per second."""
    return 6 if value is not None and value < 1 else 1 if value is not None and value < 1000 else 0


def as_json(parts: Sequence[Part]) -> dict[str, Any]:
    """All numbers, with the machine."""
    rows = [{"part": part.name, **row._asdict()} for part in parts for row in part.rows]
    return {"machine": machine(), "rows": rows, "seconds": {p.name: p.seconds for p in parts}}
