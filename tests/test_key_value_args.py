"""Command lines of video_features, translated."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayclip.errors import UsageError
from rayclip.key_value_args import drop_retired, parse_items, translate_key_values

VALUES = [
    "model_name",
    "extraction_fps",
    "device",
    "on_extraction",
    "pred_texts",
    "batch_size",
    "address",
]
SWITCHES = ["show_pred", "keep_tmp_files"]


def translated(*words: str) -> list[str]:
    return translate_key_values(words, VALUES, SWITCHES)


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["model_name=ViT-B/32"], ["--model-name=ViT-B/32"]),
        (['model_name="ViT-B/32"'], ["--model-name=ViT-B/32"]),
        (["device='cuda:0'", "a.mp4"], ["--device=cuda:0", "a.mp4"]),
        (["extraction_fps=null"], []),
        (["--device=None", "address=null"], []),
        (["--address=none"], ["--address=none"]),
        (["address='none'"], ["--address=none"]),
        (["extraction_fps=30000/1001"], ["--extraction-fps=30000/1001"]),
        (["show_pred=true", "keep_tmp_files=false"], ["--show-pred"]),
        (['show_pred="True"'], ["--show-pred"]),
        (["--show_pred=true"], ["--show-pred"]),
        (["feature_type=clip", 'feature_type="clip"'], []),
        (["video_paths=a.mp4"], ["a.mp4"]),
        (["video_paths=[a.mp4,b.mp4]"], ["a.mp4", "b.mp4"]),
        (["video_paths=[ ./a.mp4 , './b c.mp4' ]"], ["./a.mp4", "./b c.mp4"]),
        (["video_paths=[-a.mp4]"], ["./-a.mp4"]),
        (["video_paths=null"], []),
        (["pred_texts=['a, b', c]"], ["--pred-texts=['a, b', c]"]),
        (["--on_extraction", "save_numpy"], ["--on_extraction", "save_numpy"]),
        (["--model-name", "device=x"], ["--model-name", "device=x"]),
        (["--batch-size=4", "a.mp4"], ["--batch-size=4", "a.mp4"]),
        (["videos/a=b.mp4"], ["videos/a=b.mp4"]),
        (["s3://bucket/x=1/a.mp4"], ["s3://bucket/x=1/a.mp4"]),
    ],
    ids=lambda value: " ".join(value) or "nothing",
)
def test_key_values_become_options(words: list[str], options: list[str]) -> None:
    assert translated(*words) == options


@pytest.mark.parametrize(
    "words", [["--resize", "fast"], ["--resize=pil"], ["resize=fast"], ['resize="fast"']]
)
def test_a_retired_option_is_ignored_with_a_sentence(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert drop_retired(["a.mp4", *words, "--limit", "3"]) == ["a.mp4", "--limit", "3"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("resize is no longer an option")


def test_an_existing_file_with_an_equals_sign_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("take=2.mp4").touch()
    assert translated("take=2.mp4") == ["take=2.mp4"]


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("extracton_fps=5", "no argument extracton_fps; the nearest is extraction_fps"),
        ("fps=5", "no argument fps; the nearest is"),
        ("device_ids=[0,1]", "no argument device_ids; the nearest is device"),
        ("video_path=a.mp4", "the nearest is video_paths"),
        ("show_pred=maybe", "show_pred must be true or false, not maybe"),
        ("feature_type=i3d", "rayclip extracts clip only"),
        ("video_paths=[a.mp4", "video_paths must be a list"),
        ("video_paths=[[a.mp4]]", "video_paths must be a list"),
    ],
)
def test_an_invalid_argument_is_refused_in_a_sentence(word: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        translated(word)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ("['a dog smiles', 'a woman is lifting']", ["a dog smiles", "a woman is lifting"]),
        ("[a dog smiles, a woman is lifting]", ["a dog smiles", "a woman is lifting"]),
        ('["a, b", true, 3, null]', ["a, b", "true", "3", "null"]),
        ("'a dog smiles'", ["a dog smiles"]),
        ("a dog smiles", ["a dog smiles"]),
        ("null", []),
        ("[]", []),
    ],
)
def test_a_list_is_read_as_strings(value: str, items: list[str]) -> None:
    assert parse_items("pred_texts", value) == items
