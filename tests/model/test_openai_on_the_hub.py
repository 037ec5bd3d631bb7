"""OpenAI's weights as open_clip has them on the Hugging Face Hub: the same tensors, other code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch

from rayclip.model.loaded_model import LoadedModel
from rayclip.model.loading import load_clip
from rayclip.model.openai import MEAN, OFFICIAL_MODELS, STD
from rayclip.model.weights import name_on_the_hub

open_clip = pytest.importorskip("open_clip")

OPENAI_ONLY = ("input_resolution", "context_length", "vocab_size")
TEXTS = ["a cat", "a dog on a sofa", "three red circles"]


def theirs(published: Any) -> Any:
    """Return open_clip's model, in fp32, with the tensors of one of OpenAI's."""
    visual, heads = published.visual, published.transformer.resblocks[0].attn.num_heads
    vision: dict[str, Any] = {"image_size": visual.input_resolution}
    if hasattr(visual, "class_embedding"):
        width, _, _, patch_size = visual.conv1.weight.shape
        layers = len(visual.transformer.resblocks)
        vision |= {"layers": layers, "width": width, "patch_size": patch_size}
    else:
        stages = (visual.layer1, visual.layer2, visual.layer3, visual.layer4)
        vision |= {"layers": tuple(map(len, stages)), "width": visual.conv1.out_channels * 2}
    text = {
        "context_length": published.context_length,
        "vocab_size": published.vocab_size,
        "width": published.ln_final.weight.shape[0],
        "heads": heads,
        "layers": len(published.transformer.resblocks),
    }
    dim = published.text_projection.shape[1]
    model = open_clip.model.CLIP(dim, vision, text, quick_gelu=True)
    tensors = published.state_dict().items()
    model.load_state_dict({name: x.float() for name, x in tensors if name not in OPENAI_ONLY})
    return model.eval()


@pytest.fixture(params=[checkpoints.small_vit, checkpoints.small_resnet])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[LoadedModel, Any]:
    make: Callable[[], Any] = request.param
    published = make()
    path = checkpoints.save_torchscript(published, tmp_path / "published.pt")
    return load_clip("custom", str(path), "cpu", batch_size=8), theirs(published)


def test_features_of_frames_differ_by_rounding_only(both: tuple[LoadedModel, Any]) -> None:
    ours, other = both
    shape = (8, ours.n_px, ours.n_px, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    pixels = (torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255 - mean) / std
    with torch.inference_mode():
        expected = other.encode_image(pixels).numpy()
    features = ours.encode_image(frames)
    assert np.abs(features - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 0.1 * np.abs(expected).max()  # frames differ


def test_features_of_texts_differ_by_rounding_only(both: tuple[LoadedModel, Any]) -> None:
    ours, other = both
    tokens = open_clip.SimpleTokenizer(context_length=other.context_length)(TEXTS)
    with torch.inference_mode():
        expected = other.encode_text(tokens, normalize=True).numpy()
    features = ours.encode_text(TEXTS)
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert np.abs(features - expected).max() <= 1e-6


@pytest.mark.parametrize("model_name", OFFICIAL_MODELS)
def test_each_of_openais_models_has_the_same_weights_on_the_hub(model_name: str) -> None:
    arch, tag = name_on_the_hub(model_name).removeprefix("open_clip:").split("/")
    config = open_clip.get_pretrained_cfg(arch, tag)
    assert OFFICIAL_MODELS[model_name].weights_sha256 in config["url"]
    assert config["hf_hub"].startswith("timm/")
    assert open_clip.get_model_config(arch)["quick_gelu"]
