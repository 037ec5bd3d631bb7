"""``run.json``: the settings of a run, and which folders it may resume."""

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from rayclip.errors import UsageError
from rayclip.model.models import ModelSpec
from rayclip.model.preprocess import Resizing
from rayclip.output.run_record import COMPARED, differences, refuse_to_mix, run_record
from rayclip.settings import Settings

SPEC = ModelSpec("demo", Resizing(64), 64, "ab" * 32, activation="quickgelu")
SETTINGS = Settings(model_name="demo", extraction_fps=Fraction(5))
NOW = run_record(SETTINGS, SPEC)


def test_the_record_has_settings_and_versions() -> None:
    said = {name: NOW[name] for name in ("model_name", "weights_sha256", "dim", "n_px")}
    assert said == {"model_name": "demo", "weights_sha256": "ab" * 32, "dim": 64, "n_px": 64}


def test_the_record_survives_json() -> None:
    assert json.loads(json.dumps(NOW)) == NOW


@pytest.mark.parametrize(
    ("fps", "said"), [(None, None), (Fraction(5), "5"), (Fraction(30_000, 1001), "30000/1001")]
)
def test_the_record_has_the_exact_frame_rate(fps: Fraction | None, said: str | None) -> None:
    assert run_record(replace(SETTINGS, extraction_fps=fps), SPEC)["extraction_fps"] == said


@pytest.mark.parametrize("package", ["rayclip", "ray", "torch", "av", "numpy", "pillow"])
def test_the_record_has_the_versions_that_made_the_features(package: str) -> None:
    assert NOW["versions"][package][0].isdigit()


def test_the_record_has_the_precision_that_was_asked_for() -> None:
    record = run_record(replace(SETTINGS, precision="fp32", compile=True), SPEC)
    assert (NOW["precision"], NOW["compile"]) == ("auto", False)
    assert (record["precision"], record["compile"]) == ("fp32", True)


def test_the_record_never_holds_storage_options() -> None:
    secret = replace(SETTINGS, storage_options={"key": "hunter2"})
    assert "hunter2" not in json.dumps(run_record(secret, SPEC))


def test_every_compared_value_is_in_the_record() -> None:
    assert set(COMPARED) <= set(NOW)


@pytest.mark.parametrize("name", COMPARED)
def test_a_difference_is_named_with_both_values(name: str) -> None:
    assert differences(NOW | {name: "older"}, NOW) == [f"{name}=older (now {NOW[name]})"]


@pytest.mark.parametrize("name", ["device", "batch_size", "compile", "python", "versions"])
def test_what_does_not_change_the_features_is_not_compared(name: str) -> None:
    assert differences(NOW | {name: "older"}, NOW) == []


def test_a_value_that_an_older_record_lacks_is_a_difference() -> None:
    before = {name: value for name, value in NOW.items() if name != "frame_rule"}
    assert differences(before, NOW) == [f"frame_rule=None (now {NOW['frame_rule']})"]


def test_a_record_from_before_activations_were_recorded_had_openais() -> None:
    before = {name: value for name, value in NOW.items() if name != "activation"}
    assert differences(before, NOW) == []
    assert differences(before, NOW | {"activation": "gelu"}) == ["activation=quickgelu (now gelu)"]


def test_a_record_of_an_older_version_may_lack_options_that_have_their_defaults() -> None:
    options = ("every", "keyframes", "start", "end")
    before = {name: value for name, value in NOW.items() if name not in options}
    refuse_to_mix(before, NOW, "out")
    now = run_record(replace(SETTINGS, start=12.5), SPEC)
    assert differences(before, now) == ["start=None (now 12.5)"]


@pytest.mark.parametrize(
    "other",
    [
        lambda: run_record(SETTINGS, replace(SPEC, model_name="ViT-B/32")),
        lambda: run_record(SETTINGS, replace(SPEC, weights_sha256="cd" * 32)),
        lambda: run_record(replace(SETTINGS, precision="bf16"), SPEC),
        lambda: run_record(replace(SETTINGS, extraction_fps=None), SPEC),
        lambda: run_record(replace(SETTINGS, extraction_fps=Fraction(4)), SPEC),
        lambda: run_record(replace(SETTINGS, extraction_fps=None, every=2), SPEC),
        lambda: run_record(replace(SETTINGS, extraction_fps=None, keyframes=True), SPEC),
        lambda: run_record(replace(SETTINGS, start=1.0), SPEC),
        lambda: run_record(replace(SETTINGS, end=1.0), SPEC),
    ],
    ids=[
        "model",
        "weights",
        "precision",
        "every-frame",
        "frame-rate",
        "every",
        "keyframes",
        "start",
        "end",
    ],
)
def test_features_of_other_settings_are_refused(other: Callable[[], dict[str, Any]]) -> None:
    with pytest.raises(UsageError, match=r"^out was made with .* \(now .*\): choose another"):
        refuse_to_mix(NOW, other(), "out")


def test_a_folder_of_the_same_settings_is_not_refused() -> None:
    refuse_to_mix(NOW, NOW, "out")


def test_features_of_unknown_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown settings, because"):
        refuse_to_mix(None, NOW, "out")
