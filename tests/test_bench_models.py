"""The benchmark of models measures each family in turn."""

from __future__ import annotations

import bench
import bench_models
import pytest
from bench_models import Cost
from typer.testing import CliRunner

pytest.importorskip("open_clip", reason="the extra open_clip is not installed")


def test_the_ratio_is_that_of_each_round_to_the_first_model() -> None:
    costs = {"a": Cost(224, 512, (2.0, 4.0, 9.0)), "b": Cost(64, 32, (4.0, 8.0, 9.0))}
    _, _, first, second, *_ = bench_models.report(costs, 16).splitlines()
    assert first.split() == ["|", "a", "|", "224", "|", "512", "|", "4.0", "|", "1.0", "|"]
    assert second.split() == ["|", "b", "|", "64", "|", "32", "|", "8.0", "|", "2.0", "|"]


def test_models_of_each_family_are_measured() -> None:
    names = ["small", "timm:test_vit.r160_in1k", "timm:test_vit.r160_in1k@32"]
    *_, costs = bench_models.measured(names, 2, 2)
    assert [(cost.n_px, cost.dim, len(cost.cpu_ms)) for cost in costs.values()] == [
        (224, 64, 2),
        (160, 64, 2),
        (32, 64, 2),
    ]
    assert all(ms > 0 for cost in costs.values() for ms in cost.cpu_ms)


@pytest.mark.parametrize("name", ["ViT-B/33", "timm:no_such", "open_clip:ViT-B-33"])
def test_a_model_that_does_not_exist_gets_one_sentence(name: str) -> None:
    done = CliRunner().invoke(bench.app, ["models", "--model", name])
    assert done.exit_code == 2
    assert name.partition(":")[2] in done.stderr
