"""Checkpoints from training scripts: in dictionaries, with prefixes, and of other models."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch

from rayclip.errors import UsageError
from rayclip.model.loading import load_clip
from rayclip.model.models import CustomWeights, describe
from rayclip.model.openai import load_module

WRAPPERS = ["state_dict", "model_state_dict", "model"]
PREFIXES = [
    "module.",
    "model.",
    "clip.",
    "clip_model.",
    "_orig_mod.",
    "model.module.",
    "module._orig_mod.",
]
MODELS = {"ViT": checkpoints.small_vit, "ResNet": checkpoints.small_resnet}


def features_of(path: Path) -> np.ndarray:
    model = load_clip("custom", str(path), "cpu", batch_size=3)
    rng = np.random.default_rng(0)
    return model.encode_image(rng.integers(0, 256, (3, model.n_px, model.n_px, 3), np.uint8))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("plain")
    return {
        name: features_of(checkpoints.save_state_dict(make(), folder / f"{name}.pt"))
        for name, make in MODELS.items()
    }


def save(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("name", "wrapper", "prefix"),
    [
        *(("ViT", None, prefix) for prefix in PREFIXES),
        *(("ViT", wrapper, "") for wrapper in WRAPPERS),
        *((name, "state_dict", "model.") for name in MODELS),
    ],
)
def test_wrapped_and_prefixed_tensors_are_found(
    plain: dict[str, np.ndarray], name: str, wrapper: str | None, prefix: str, tmp_path: Path
) -> None:
    tensors = {f"{prefix}{key}": tensor for key, tensor in MODELS[name]().state_dict().items()}
    content = tensors if wrapper is None else {"epoch": 3, wrapper: tensors, "optimizer": {}}
    assert np.array_equal(features_of(save(content, tmp_path / "a.pt")), plain[name])


def test_wrappers_may_be_nested(plain: dict[str, np.ndarray], tmp_path: Path) -> None:
    content = {"model": {"state_dict": checkpoints.small_vit().state_dict()}}
    assert np.array_equal(features_of(save(content, tmp_path / "a.pt")), plain["ViT"])


@pytest.mark.parametrize("name", MODELS)
def test_weights_in_fp32_are_not_rounded(name: str, tmp_path: Path) -> None:
    tensors = {key: value.clone() for key, value in MODELS[name]().float().state_dict().items()}
    for value in tensors.values():
        if value.is_floating_point():
            value += value.abs() * 2**-13  # less than fp16 can tell
    spec = describe("custom", CustomWeights(str(save(tensors, tmp_path / "a.pt"))))
    for key, value in load_module(spec, "cpu", "fp32").state_dict().items():
        assert torch.equal(value, tensors[key]), key


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_clip("custom", str(path), "cpu")
    return str(caught.value)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["vision_model.embeddings.class_embedding"], "OpenAI's image encoder at most"),
        (["text_model.embeddings.position_ids"], "OpenAI's text encoder at most"),
        (["clip.vision_model.post_layernorm.weight"], "OpenAI's image encoder at most"),
        (["vision_model.head.probe", "logit_bias"], "a Hugging Face SigLIP model"),
        (["visual.conv1.weight", "logit_bias"], "trained with a sigmoid loss"),
        (["visual.conv1.weight", "text_decoder.ln_1.weight"], "a CoCa model"),
        (["visual.trunk.pos_embed", "text.ln_final.weight"], "one of timm's"),
        (["visual.conv1.weight", "text.transformer.embeddings.word"], "another text encoder"),
        (["base_model.model.vision_model.fc1.lora_A.weight"], "an adapter (LoRA)"),
        (["blocks.0.attn.qkv.weight"], "timm's vision transformers"),
        (["fc.weight", "fc.bias"], "but fc.weight, fc.bias"),
        (["visual.conv1.weight"], "it has no tensor token_embedding.weight"),
        ([], "it holds no tensors"),
    ],
)
def test_tensors_of_another_model_are_identified(
    names: list[str], said: str, tmp_path: Path
) -> None:
    path = save({name: torch.zeros(2) for name in names}, tmp_path / "a.pt")
    assert said in refusal(path)


def test_a_training_checkpoint_with_python_objects_is_refused(tmp_path: Path) -> None:
    content = {"state_dict": checkpoints.small_vit().state_dict(), "args": argparse.Namespace(a=1)}
    assert "holds Python objects, as training checkpoints do" in refusal(
        save(content, tmp_path / "a.pt")
    )


def test_a_dictionary_that_holds_itself_is_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["state_dict"] = content
    assert "it holds no tensors" in refusal(save(content, tmp_path / "a.pt"))


def test_what_is_no_tensor_is_passed_over(plain: dict[str, np.ndarray], tmp_path: Path) -> None:
    content = {**checkpoints.small_vit().state_dict(), "epoch": 3, 7: torch.zeros(2)}
    assert np.array_equal(features_of(save(content, tmp_path / "a.pt")), plain["ViT"])
