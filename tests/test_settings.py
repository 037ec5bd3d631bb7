"""Settings refuse invalid values in a sentence that names valid ones."""

import inspect
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import rayclip
from rayclip.errors import UsageError
from rayclip.options import takes_options
from rayclip.settings import OPTIONS, Settings


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().model_name = "demo"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_name", ("ViT-B/32",)),
        ("extraction_fps", None),
        ("on_extraction", "print"),
        ("output_path", "./output"),
        ("precision", "auto"),
        ("compile", False),
        ("overwrite", False),
        ("max_attempts", 3),
    ],
)
def test_the_defaults_are_those_of_the_documentation(name: str, value: object) -> None:
    assert getattr(Settings(), name) == value


@pytest.mark.parametrize("device", [None, "cpu", "cuda", "cuda:0", "cuda:13"])
def test_valid_devices_are_accepted(device: str | None) -> None:
    assert Settings(device=device).device == device


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0."),
        ({"encoders": -1}, "encoders must be at least 1, not -1."),
        ({"max_attempts": 0}, "max_attempts must be at least 1, not 0."),
        (
            {"on_extraction": "save_jpg"},
            "on_extraction must be one of print, save_numpy, save_pickle, save_parquet, not "
            "'save_jpg'.",
        ),
        (
            {"extraction_fps": Fraction(5), "extraction_total": 3},
            "extraction_fps and extraction_total exclude each other: give one.",
        ),
        ({"every": 0}, "every must be at least 1, not 0."),
        ({"every": 2, "keyframes": True}, "every and keyframes exclude each other: give one."),
        (
            {"start": "soon"},
            "start must be a number of seconds from 0 on, such as 90 or 12.5, not 'soon'.",
        ),
        ({"end": -1}, "end must be a number of seconds from 0 on, such as 90 or 12.5, not -1."),
        (
            {"start": 5, "end": "2.5"},
            "end must be after start, but the range is from 5 s to 2.5 s.",
        ),
        (
            {"on_extraction": "save_numpy", "output_path": "a/b", "tmp_path": "./a/b"},
            "output_path and tmp_path are the same folder, a/b.",
        ),
        ({"extraction_total": 0}, "extraction_total must be at least 1, not 0."),
        ({"naming": "uuid"}, "naming must be one of stem, path, not 'uuid'."),
        (
            {"precision": "fp8"},
            "precision must be one of auto, fp32, fp16, bf16, not 'fp8'.",
        ),
        ({"compile": "yes"}, "compile must be true or false, not 'yes'."),
        ({"device": "gpu"}, "device must be cpu, cuda or cuda:N, not 'gpu'."),
        ({"device": ""}, "device must be cpu, cuda or cuda:N, not ''."),
        ({"device": "cuda:"}, "device must be cpu, cuda or cuda:N, not 'cuda:'."),
        ({"device": "cuda:x"}, "device must be cpu, cuda or cuda:N, not 'cuda:x'."),
        ({"device": "cuda:-1"}, "device must be cpu, cuda or cuda:N, not 'cuda:-1'."),
        ({"device": "cpu:0"}, "device must be cpu, cuda or cuda:N, not 'cpu:0'."),
        (
            {"weights": "a.pt"},
            "weights are only for model_name custom, but model_name is ViT-B/32.",
        ),
    ],
)
def test_a_wrong_value_is_refused_in_a_sentence(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        Settings(**wrong)
    assert str(caught.value) == sentence


def test_weights_go_with_the_custom_model() -> None:
    assert Settings(model_name="custom", weights="a.pt").weights == "a.pt"


def test_ray_client_addresses_get_a_sentence_about_ray_job_submit() -> None:
    with pytest.raises(UsageError, match="ray job submit"):
        Settings(address="ray://head:10001")


@pytest.mark.parametrize("address", [None, "auto", "none", "10.0.0.1:6379"])
def test_other_addresses_are_accepted(address: str | None) -> None:
    assert Settings(address=address).address == address


@pytest.mark.parametrize(("on_extraction", "saves"), [("print", False), ("save_numpy", True)])
def test_only_printing_saves_nothing(on_extraction: Any, saves: bool) -> None:
    assert Settings(on_extraction=on_extraction).saves is saves


def test_storage_options_are_not_shown_with_the_settings() -> None:
    assert "hunter2" not in repr(Settings(storage_options={"secret": "hunter2"}))


@pytest.mark.parametrize(
    ("value", "fps"),
    [
        (None, None),
        ("null", None),
        ("", None),
        (1000, Fraction(1000)),
        (5, Fraction(5)),
        ("2.5", Fraction(5, 2)),
        ("30000/1001", Fraction(30_000, 1001)),
    ],
)
def test_a_frame_rate_becomes_a_fraction(value: Any, fps: Fraction | None) -> None:
    assert Settings(extraction_fps=value).extraction_fps == fps


@pytest.mark.parametrize("value", ["0", "-1", "fast", "1001", "1e400", "1/0", "nan", 0, -2.5])
def test_an_invalid_frame_rate_is_refused_with_valid_examples(value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        Settings(extraction_fps=value)
    assert str(caught.value) == (
        "extraction_fps must be a number above zero, and at most 1000, such as 5, 2.5 or "
        f"30000/1001, not {value!r}."
    )


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'a\\ud800' of video_paths cannot be a file name"):
        Settings(video_paths=("a\ud800",))


@pytest.mark.parametrize(
    ("given", "held"),
    [
        ({"video_paths": "a.mp4"}, ("a.mp4",)),
        ({"video_paths": [Path("a.mp4"), "b.mp4"]}, ("a.mp4", "b.mp4")),
        ({"output_path": Path("features")}, "features"),
        ({"pred_texts": "[a cat, a dog]"}, ("[a cat, a dog]",)),
        ({"pred_texts": ["none", "'a dog'"]}, ("none", "'a dog'")),
        ({"pred_texts": None}, ()),
        ({"storage_options": None}, {}),
    ],
    ids=str,
)
def test_callers_may_give_wider_types(given: dict[str, Any], held: object) -> None:
    (name,) = given
    assert getattr(Settings(**given), name) == held


@pytest.mark.parametrize("function", [rayclip.extract, rayclip.encode])
def test_functions_show_their_options_with_types_defaults_and_help(
    function: Callable[..., Any],
) -> None:
    batch_size = inspect.signature(function).parameters["batch_size"]
    assert (batch_size.annotation, batch_size.default) == (int | None, None)
    assert "    batch_size: Frames per forward pass" in str(function.__doc__)


def test_encode_takes_no_options_about_files() -> None:
    assert not {"output_path", "limit"} & inspect.signature(rayclip.encode).parameters.keys()


def test_a_misspelt_keyword_is_a_type_error_that_names_the_nearest() -> None:
    with pytest.raises(TypeError, match=r"extract\(\) .* 'extract_fps'.* extraction_fps"):
        rayclip.extract("a.mp4", extract_fps=5)  # type: ignore[call-arg]


def test_a_retired_keyword_is_ignored_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    extract = takes_options([OPTIONS["limit"]])(lambda **options: options)
    assert extract(limit=3, resize="fast") == {"limit": 3}
    assert capsys.readouterr().err.startswith("resize is no longer an option")


def test_a_model_that_is_named_twice_counts_once() -> None:
    names = ["demo", "ViT-B/32", "demo"]
    assert Settings(model_name=names).model_name == ("demo", "ViT-B/32")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "option", [{"weights": "a.pt"}, {"show_pred": True}, {"keep_tmp_files": True}]
)
def test_options_for_one_model_are_refused_with_several(option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(UsageError, match=rf"{name} is for one model, but model_name has 2 \(demo"):
        Settings(model_name=("demo", "custom"), **option)


@pytest.mark.parametrize("names", [[], "", ["demo", " "]])
def test_models_need_a_name(names: Any) -> None:
    with pytest.raises(UsageError, match="model_name is empty"):
        Settings(model_name=names)


def test_more_models_than_a_run_takes_are_refused() -> None:
    with pytest.raises(UsageError, match="has 33 models, but a run takes 32 at most"):
        Settings(model_name=tuple(map(str, range(33))))
