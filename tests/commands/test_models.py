"""``rayclip models``: names that can be given as model_name, and what is known of them."""

from __future__ import annotations

import sys

import pytest

from rayclip.commands.models import list_models
from rayclip.errors import UsageError
from rayclip.model import open_clip_tables
from rayclip.model.models import describe, family_name, is_for_research_only


def listed(word: str | None) -> list[list[str]]:
    lines: list[str] = []
    list_models(word, lines.append)
    return [line.split() for line in lines]


def test_without_a_word_openai_s_models_are_listed_as_they_are_described() -> None:
    header, *rows = listed(None)
    assert header == ["model", "pixels", "features", "texts", "license"]
    models = [row for row in rows if row and row[-1] == "MIT"]
    assert len(models) == 10
    for name, n_px, dim, texts, _ in models:
        spec = describe(name)
        assert [str(spec.n_px), str(spec.dim), texts] == [n_px, dim, "yes"]


def test_a_word_finds_models_of_all_families() -> None:
    pytest.importorskip("open_clip")
    names = {row[0]: row[1:] for row in listed("vit-b-32-siglip2")[1:]}
    assert names == {"open_clip:ViT-B-32-SigLIP2-256/webli": ["256", "768", "yes", "-"]}
    names = {row[0]: row[1:] for row in listed("small_patch14_DINOv2")[1:]}
    assert names == {"timm:vit_small_patch14_dinov2.lvd142m": ["518", "384", "no", "apache-2.0"]}


def test_every_published_model_of_open_clip_is_listed() -> None:
    open_clip = pytest.importorskip("open_clip")
    names = {row[0] for row in listed("open_clip:")[1:]}
    published = open_clip.list_pretrained()
    missing = {f"open_clip:{name}/{tag}" for name, tag in published} - names
    assert {name.partition("/")[0] for name in missing} <= {"open_clip:coca_roberta-ViT-B-32"}


def test_without_the_extra_the_others_are_listed_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(open_clip_tables, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "timm", None)
    rows = listed("ViT-B/32")
    assert rows[1][0] == "ViT-B/32"
    assert "'rayclip[open_clip]'." in rows[2]
    with pytest.raises(UsageError, match=r"contains 'siglip'.*pip install 'rayclip\[open_clip\]'"):
        list_models("siglip", print)


@pytest.mark.parametrize(
    ("license_", "expected"),
    [
        ("MIT", False),
        ("apache-2.0", False),
        ("cc-by-4.0", False),
        ("cc-by-nc-4.0", True),
        ("CC-BY-NC-SA-4.0", True),
        ("apple-amlr", True),
        ("fair-noncommercial-research-license", True),
    ],
)
def test_licenses_for_research_only_are_known(license_: str, expected: bool) -> None:
    assert is_for_research_only(license_) is expected


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("ViT-B/32", "openai"),
        ("custom", "openai"),
        ("open_clip:ViT-B-32/openai", "open_clip"),
        ("hf-hub:a/b", "open_clip"),
        ("local-dir:/a", "open_clip"),
        ("timm:resnet18", "timm"),
    ],
)
def test_a_name_says_its_family(name: str, family: str) -> None:
    assert family_name(name) == family
