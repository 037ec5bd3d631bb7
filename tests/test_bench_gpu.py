"""The benchmark of GPUs: each part works on a CPU, and none prevents the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bench
import bench_forward
import bench_gpu
import bench_gpu_parts
import measure_precision
import pytest
import torch
from bench_encode import SHAPES
from bench_gpu import GpuJob
from bench_gpu_parts import PARTS, PartJob, Row
from bench_pipeline import ALONE, FORWARD, Done
from bench_processes import CommandFailed, Work
from typer.testing import CliRunner

UNHURRIED = PartJob(["small"], 1e6)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "small", (64, 64, 1, 64, 32, 77, 49408, 64, 1, 1))
    monkeypatch.setattr(measure_precision, "FRAMES", 8)
    monkeypatch.setattr(bench_forward, "SECONDS", 0.01)
    monkeypatch.setattr(bench_gpu_parts, "GPU_BATCH_SIZE", 2)
    monkeypatch.setattr(bench_gpu_parts, "BATCH_SIZES", (2, 4))
    monkeypatch.setattr(bench_gpu_parts, "HALF_PRECISIONS", ("bf16",))
    monkeypatch.setattr(PartJob, "device", "cpu")


def test_the_forward_loop_is_compared_with_a_matrix_product() -> None:
    product, loop = PARTS["forward"](UNHURRIED)
    assert (product.what, product.unit, loop.what) == (
        "matrix product, bf16",
        "TFLOP/s",
        "small, bf16",
    )
    assert loop.value is not None
    assert loop.value > 0
    assert loop.note.endswith("% of the matrix product, batches of 2")


def test_batches_of_each_size_are_measured() -> None:
    rows = list(PARTS["batches"](UNHURRIED))
    assert [row.what for row in rows] == ["small, batches of 2", "small, batches of 4"]
    assert all(row.value for row in rows)


def test_half_precision_is_compared_with_fp32() -> None:
    demo, small = PARTS["cosine"](UNHURRIED)
    assert (demo.what, small.what) == ("demo, bf16", "small, bf16")
    assert demo.value is not None
    assert 0.999 < demo.value < 1


def test_a_device_that_is_nearly_full_gets_smaller_batches() -> None:
    (row,) = PARTS["out_of_memory"](UNHURRIED)
    assert row == Row("small", 16, "frames a pass", "of 64; features of the same frames are equal")


@pytest.mark.skipif(torch.cuda.is_available(), reason="it has a GPU")
def test_without_a_gpu_its_memory_is_a_row_with_the_reason() -> None:
    (row,) = PARTS["memory"](UNHURRIED)
    assert row.value is None
    assert "Error: " in row.note


def test_runs_are_compared_with_the_forward_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    works = {FORWARD: Work(100, 1.0, 0.1), ALONE: Work(100, 2.0, 8.0)}

    def rounds_of(job: Any, ways: Sequence[str], rounds: int) -> Any:
        if ways[0] not in works:
            raise CommandFailed("it broke")
        yield {way: Done(works[way]) for way in ways}

    monkeypatch.setattr(bench_gpu_parts, "rounds_of", rounds_of)
    limit, alone, rayclip, two = PARTS["synthetic"](UNHURRIED)
    assert (limit.value, alone.value) == (100, 50)
    assert alone.note == "0.50 of the limit, which would take 8 cores"
    assert (rayclip.value, two.note) == (None, "CommandFailed: it broke")


def test_a_part_without_time_begins_nothing() -> None:
    rows = list(PARTS["compiled"](PartJob(["small"], -1.0)))
    assert rows == [Row("small, bf16", None, "frames/s", "skipped: no time left")]


def test_a_part_that_dies_keeps_its_rows_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = []

    def run_command(words: Sequence[str], environment: object, limit_s: float) -> None:
        limits.append(limit_s)
        Path(words[3]).write_text(json.dumps(Row("a", 0.5, "cosine")) + "\n")
        if words[2] == "forward":
            raise CommandFailed("did not end within 9 s")

    monkeypatch.setattr(bench_gpu, "run_command", run_command)
    first, second = bench_gpu.measured(GpuJob(["small"], ["forward", "compiled"], 1.0))
    assert first.rows == [
        Row("a", 0.5, "cosine"),
        Row("the rest", None, "", "did not end within 9 s"),
    ]
    assert second.rows == [Row("a", 0.5, "cosine")]
    assert limits == pytest.approx([30, 60], abs=1)  # what the first did not need is the second's
    printed = bench_gpu.report([first, second])
    assert "| forward: the rest |        - |        | did not end within 9 s |" in printed
    assert bench_gpu.as_json([second])["rows"] == [
        {"part": "compiled", "what": "a", "value": 0.5, "unit": "cosine", "note": ""}
    ]


def test_the_parts_of_the_command_exist() -> None:
    assert set(bench_gpu.WEIGHTS) == set(PARTS)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--part", "magic"], "--part must be one of forward, "),
        (["--model", "RN5"], "--model must be one of small, ViT-B/32, "),
        (["--json", "absent/gpu.json"], "There is no folder absent for gpu.json."),
    ],
)
def test_bad_input_is_one_sentence(words: list[str], sentence: str) -> None:
    ended = CliRunner().invoke(bench.app, ["gpu", *words])
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"bench: {sentence}")
