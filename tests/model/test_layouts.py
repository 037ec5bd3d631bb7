"""Checkpoints in the layouts of other libraries: converted as these libraries compute."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import checkpoints
import fsspec
import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP, CustomTextCLIP, convert_to_custom_text_state_dict
from safetensors.torch import save_file
from torch import nn
from transformers.models.clip import CLIPConfig, CLIPModel, CLIPVisionModelWithProjection

from rayclip.errors import UsageError
from rayclip.model.architecture import find_architecture
from rayclip.model.checkpoint import ClipShape
from rayclip.model.configs import MEAN, STD
from rayclip.model.layouts import to_openai
from rayclip.model.loading import load_clip
from rayclip.model.models import CustomWeights, describe

Features = NDArray[np.float32]
Tensors = dict[str, torch.Tensor]

N_PX, DIM, TOKENS = 40, 48, 20  # as those of checkpoints.small_vit
TEXTS = ["a photo of a red circle", "a blue square", "", "Zwei Katzen & 1 Hund!"]
FRAMES = np.random.default_rng(0).integers(0, 256, (5, N_PX, N_PX, 3), np.uint8)


def hugging_face_config(activation: str = "quick_gelu", head_size: int = 64) -> CLIPConfig:
    common = {"hidden_act": activation, "num_attention_heads": 64 // head_size}
    common |= {"hidden_size": 64, "intermediate_size": 256}
    return CLIPConfig(
        text_config={**common, "num_hidden_layers": 2, "max_position_embeddings": TOKENS},
        vision_config={**common, "num_hidden_layers": 2, "image_size": N_PX, "patch_size": 8},
        projection_dim=DIM,
    )


def open_clip_config(**settings: Any) -> dict[str, Any]:
    return {
        "embed_dim": DIM,
        "vision_cfg": {"image_size": N_PX, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": TOKENS, "vocab_size": 49408, "width": 64}
        | {"heads": 1, "layers": 2},
        **settings,
    }


@cache
def plain() -> Tensors:
    """One random model in OpenAI's layout."""
    return {name: value.float() for name, value in checkpoints.small_vit().state_dict().items()}


@cache
def in_open_clip() -> Tensors:
    model = CLIP(**open_clip_config(quick_gelu=True))
    model.load_state_dict(plain())
    return model.state_dict()


@cache
def in_open_clip_with_a_text_tower() -> Tensors:
    model = CustomTextCLIP(**open_clip_config(quick_gelu=True))
    model.load_state_dict(convert_to_custom_text_state_dict(plain()))
    return model.state_dict()


@cache
def in_hugging_face() -> Tensors:
    """Copied module by module, as the script that converted OpenAI's models for the hub did."""
    theirs, model = CLIPModel(hugging_face_config()), checkpoints.small_vit().float()
    towers = [(theirs.text_model, model), (theirs.vision_model, model.visual)]
    with torch.no_grad():
        for tower, openais in towers:
            positions = tower.embeddings.position_embedding
            positions.weight.copy_(openais.positional_embedding)
            blocks = openais.transformer.resblocks
            for layer, block in zip(tower.encoder.layers, blocks, strict=True):
                attention = layer.self_attn
                for part, name in enumerate(("q_proj", "k_proj", "v_proj")):
                    rows = slice(64 * part, 64 * (part + 1))
                    getattr(attention, name).weight.copy_(block.attn.in_proj_weight[rows])
                    getattr(attention, name).bias.copy_(block.attn.in_proj_bias[rows])
                copy(block.attn.out_proj, attention.out_proj)
                copy(block.ln_1, layer.layer_norm1)
                copy(block.ln_2, layer.layer_norm2)
                copy(block.mlp.c_fc, layer.mlp.fc1)
                copy(block.mlp.c_proj, layer.mlp.fc2)
        theirs.vision_model.embeddings.class_embedding.copy_(model.visual.class_embedding)
        theirs.vision_model.embeddings.patch_embedding.weight.copy_(model.visual.conv1.weight)
        theirs.text_model.embeddings.token_embedding.weight.copy_(model.token_embedding.weight)
        theirs.text_projection.weight.copy_(model.text_projection.T)
        theirs.visual_projection.weight.copy_(model.visual.proj.T)
        theirs.logit_scale.copy_(model.logit_scale)
        copy(model.visual.ln_pre, theirs.vision_model.pre_layrnorm)
        copy(model.visual.ln_post, theirs.vision_model.post_layernorm)
        copy(model.ln_final, theirs.text_model.final_layer_norm)
    return theirs.state_dict()


def copy(source: nn.Module, target: nn.Module) -> None:
    target.load_state_dict(source.state_dict())


LAYOUTS = {
    "OpenAI": plain,
    "open_clip": in_open_clip,
    "open_clip-CustomTextCLIP": in_open_clip_with_a_text_tower,
    "Hugging-Face": in_hugging_face,
}


def save(tensors: Any, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


def features_of(weights: Path, **settings: Any) -> tuple[Features, Features, float]:
    """Features of frames and texts, and the scale of logits."""
    model = load_clip("custom", str(weights), "cpu", batch_size=len(FRAMES), **settings)
    return model.encode_image(FRAMES), model.encode_text(TEXTS), model.logit_scale


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Features, Features, float]:
    return features_of(save(plain(), tmp_path_factory.mktemp("plain") / "a.pt"))


def assert_same_bits(found: Any, expected: Any) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def assert_close(ours: Features, theirs: torch.Tensor) -> None:
    """By centred cosines, and by lengths."""
    one, other = (each - each.mean(axis=0) for each in (ours, theirs.numpy()))
    lengths = np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1)
    assert ((one * other).sum(axis=1) / lengths[0] / lengths[1]).min() >= 0.9999
    np.testing.assert_allclose(*lengths, rtol=1e-3)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_model_has_the_same_bits_in_every_layout(
    layout: str, suffix: str, expected: Any, tmp_path: Path
) -> None:
    weights = save(LAYOUTS[layout](), tmp_path / f"a{suffix}")
    assert_same_bits(features_of(weights, activation="quickgelu"), expected)


PREFIXES = ["module.", "model.", "clip.", "clip_model.", "_orig_mod.", "model.module."]


@pytest.mark.parametrize("prefix", ["", *PREFIXES])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_model_has_the_same_tensors_in_every_layout_with_any_prefix(
    layout: str, prefix: str
) -> None:
    tensors = {f"{prefix}{name}": tensor for name, tensor in LAYOUTS[layout]().items()}
    _, found = to_openai({**tensors, "optimizer.step": torch.zeros(1)} if prefix else tensors)
    assert found.keys() == plain().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in plain().items())


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("layout", ["open_clip-CustomTextCLIP", "Hugging-Face"])
def test_other_layouts_may_be_wrapped_and_prefixed(
    layout: str, wrapper: str, expected: Any, tmp_path: Path
) -> None:
    tensors = {f"module.{name}": tensor for name, tensor in LAYOUTS[layout]().items()}
    content = {"epoch": 3, wrapper: tensors, "optimizer": {}}
    assert_same_bits(features_of(save(content, tmp_path / "a.pt")), expected)


def test_buffers_of_older_versions_of_transformers_are_ignored(
    expected: Any, tmp_path: Path
) -> None:
    tensors = {**in_hugging_face()}
    for tower in ("text_model", "vision_model"):
        tensors[f"{tower}.embeddings.position_ids"] = torch.arange(20)[None]
    assert_same_bits(features_of(save(tensors, tmp_path / "a.safetensors")), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", ["OpenAI", "Hugging-Face"])
def test_weights_in_half_precision_are_not_rounded_again(
    layout: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    halves = {name: tensor.to(dtype) for name, tensor in LAYOUTS[layout]().items()}
    full = {name: tensor.float() for name, tensor in halves.items()}
    one, other = (
        features_of(save(tensors, tmp_path / f"{name}.safetensors"))
        for name, tensors in (("halves", halves), ("full", full))
    )
    assert_same_bits(one, other)


def for_torch(frames: NDArray[np.uint8] = FRAMES) -> torch.Tensor:
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))
    return (pixels - mean) / std


def tokens(context_length: int = TOKENS) -> torch.Tensor:
    return open_clip.SimpleTokenizer(context_length=context_length)(TEXTS)


@torch.no_grad()
def enlarge(model: nn.Module, seed: int) -> None:
    """Make random weights so large that activations leave the range in which all are linear."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "mlp" in name:
            parameter.normal_(std=0.3, generator=generator)
        elif parameter.ndim == 2:
            parameter.normal_(std=0.1, generator=generator)


@pytest.mark.parametrize("head_size", [64, 16])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_features_are_those_of_transformers(
    activation: str, head_size: int, tmp_path: Path
) -> None:
    """Activation and heads are read from the configuration that it saves."""
    model = CLIPModel(hugging_face_config(activation, head_size)).eval()
    enlarge(model, seed=1)
    model.save_pretrained(tmp_path)
    images, texts, scale = features_of(tmp_path / "model.safetensors")
    with torch.no_grad():
        theirs = model.get_image_features(for_torch()).pooler_output
        assert_close(images, theirs)
        assert_close(texts, model.get_text_features(tokens()).pooler_output)
    assert scale == pytest.approx(float(model.logit_scale.detach().exp()))


@pytest.mark.parametrize("make", [CLIP, CustomTextCLIP])
@pytest.mark.parametrize(
    "settings",
    [
        {"quick_gelu": True},
        {},
        {"vision_cfg": {**open_clip_config()["vision_cfg"], "head_width": 16}},
    ],
    ids=["quickgelu", "gelu", "heads"],
)
def test_features_are_those_of_open_clip(
    make: Callable[..., nn.Module], settings: dict[str, Any], tmp_path: Path
) -> None:
    """Activation and heads are read from the configuration that it saves."""
    config = open_clip_config(**settings)
    model = make(**config).eval()
    enlarge(model, seed=2)
    images, texts, _ = features_of(saved_by_open_clip(tmp_path, model.state_dict(), config))
    with torch.no_grad():
        assert_close(images, model.encode_image(for_torch()))
        assert_close(texts, model.encode_text(tokens()))


def test_features_of_a_resnet_are_those_of_open_clip(tmp_path: Path) -> None:
    """Its text encoder has GELU, as open_clip's, and its image encoder has none."""
    config = open_clip_config(embed_dim=80)
    config["vision_cfg"] = {"image_size": 96, "layers": [1, 2, 1, 1], "width": 16}
    config["text_cfg"] |= {"context_length": 14}
    model = CLIP(**config).eval()
    model.load_state_dict(checkpoints.small_resnet().state_dict())
    ours = load_clip("custom", str(saved_by_open_clip(tmp_path, model.state_dict(), config)), "cpu")
    frames = np.random.default_rng(1).integers(0, 256, (5, 96, 96, 3), np.uint8)
    with torch.no_grad():
        assert_close(ours.encode_image(frames), model.encode_image(for_torch(frames)))
        assert_close(ours.encode_text(TEXTS), model.encode_text(tokens(14)))


def saved_by_hugging_face(folder: Path, activation: str = "gelu", **changes: Any) -> Path:
    """Weights, and beside them their configuration with these changes."""
    weights = save(in_hugging_face(), folder / "model.safetensors")
    config = json.loads(hugging_face_config(activation).to_json_string(use_diff=False))
    vision = {**config["vision_config"], **changes.pop("vision_config", {})}
    config |= {"vision_config": vision, **changes}
    (folder / "config.json").write_text(json.dumps(config))
    return weights


def saved_by_open_clip(
    folder: Path,
    tensors: Tensors | None = None,
    model_cfg: Any = None,
    preprocess_cfg: dict[str, Any] | None = None,
) -> Path:
    weights = save(tensors or in_open_clip(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": model_cfg or open_clip_config(), "preprocess_cfg": preprocess_cfg}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return weights


def test_the_activation_beside_the_weights_is_used_and_said(tmp_path: Path) -> None:
    model = load_clip("custom", str(saved_by_hugging_face(tmp_path)), "cpu")
    assert model.notes == ["activation: gelu, from config.json"]


def test_the_activation_beside_weights_at_a_url_is_used() -> None:
    storage = fsspec.filesystem("memory")
    content = json.dumps({"model_cfg": open_clip_config()}).encode()
    storage.pipe_file("/activation/open_clip_config.json", content)
    with storage.open("/activation/a.pt", "wb") as file:
        torch.save(plain(), file)
    assert describe("custom", CustomWeights("memory://activation/a.pt")).activation == "gelu"


def test_a_chosen_activation_wins(expected: Any, tmp_path: Path) -> None:
    weights = saved_by_hugging_face(tmp_path)
    assert_same_bits(features_of(weights, activation="quickgelu"), expected)
    assert load_clip("custom", str(weights), "cpu", activation="quickgelu").notes == []


def test_without_a_word_the_activation_is_openais_and_that_is_said(
    expected: Any, tmp_path: Path
) -> None:
    weights = save(plain(), tmp_path / "a.pt")
    (note,) = load_clip("custom", str(weights), "cpu").notes
    assert note.startswith("activation: quickgelu, as in OpenAI's models, since the weights do not")
    images, texts, _ = features_of(weights, activation="gelu")
    assert not np.allclose(images, expected[0], rtol=1e-4)
    assert not np.allclose(texts, expected[1], rtol=1e-4)


def test_the_heads_of_vit_h_14_are_those_that_were_published() -> None:
    shape = ClipShape(n_px=224, dim=1024, layout="openai", width=1280)
    assert find_architecture(shape, "/nowhere/a.pt", None, {}).head_size == 80


def refusal(weights: Path, **settings: Any) -> str:
    with pytest.raises(UsageError) as caught:
        load_clip("custom", str(weights), "cpu", **settings)
    (line,) = str(caught.value).splitlines()
    return line


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"activation": "relu"}, "since hidden_act is relu"),
        ({"vision_config": {"hidden_act": "quick_gelu"}}, "hidden_act is gelu and quick_gelu"),
        ({"vision_config": {"layer_norm_eps": 1e-6}}, "since layer_norm_eps is 1e-06"),
        ({"vision_config": {"num_attention_heads": 3}}, "since 3 heads do not divide 64"),
        ({"vision_config": {"num_attention_heads": 0}}, "is not the configuration of a CLIP"),
        ({"model_type": "metaclip_2"}, "since model_type is metaclip_2, not clip"),
        ({"projection_dim": 512}, "it is of 40 pixels and 512 features, and the weights of 40"),
    ],
)
def test_another_configuration_of_hugging_face_is_refused(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    assert said in refusal(saved_by_hugging_face(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"preprocess_cfg": {"mean": [0.5, 0.5, 0.5]}}, "since mean is [0.5, 0.5, 0.5]"),
        ({"preprocess_cfg": {"resize_mode": "squash"}}, "since resize_mode is squash"),
        ({"model_cfg": open_clip_config(multimodal_cfg={"width": 64})}, "since multimodal_cfg is"),
        (
            {"model_cfg": open_clip_config(vision_cfg={"pool_type": "avg", "image_size": 40})},
            "since pool_type is avg",
        ),
        ({"model_cfg": 3}, "is not the configuration of a CLIP"),
    ],
)
def test_another_configuration_of_open_clip_is_refused(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    assert said in refusal(saved_by_open_clip(tmp_path, **changes))


def test_a_configuration_as_published_is_accepted(tmp_path: Path) -> None:
    published = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": list(STD)}
    published |= {"interpolation": "bicubic", "resize_mode": "shortest"}
    weights = saved_by_open_clip(tmp_path, preprocess_cfg=published)
    assert describe("custom", CustomWeights(str(weights))).activation == "gelu"


def test_a_damaged_configuration_is_refused(tmp_path: Path) -> None:
    weights = saved_by_open_clip(tmp_path)
    (tmp_path / "open_clip_config.json").write_text("{")
    assert "open_clip_config.json is not the configuration of a CLIP" in refusal(weights)


def test_an_image_encoder_alone_is_identified(tmp_path: Path) -> None:
    CLIPVisionModelWithProjection(hugging_face_config().vision_config).save_pretrained(tmp_path)
    said = refusal(tmp_path / "model.safetensors")
    assert "a Hugging Face model with OpenAI's image encoder at most" in said


def test_half_a_safetensors_file_is_refused(tmp_path: Path) -> None:
    weights = save(plain(), tmp_path / "a.safetensors")
    weights.write_bytes(weights.read_bytes()[:100_000])
    assert "is damaged or incompletely downloaded" in refusal(weights)


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "a.bin.index.json"])
def test_a_part_of_a_checkpoint_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"{}")
    assert "is one file of a checkpoint that was saved in several" in refusal(tmp_path / name)


def test_an_unknown_activation_is_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path / "a.pt", activation="relu")
    assert said == "activation must be one of quickgelu, gelu, not 'relu'."


def test_only_custom_has_an_activation() -> None:
    with pytest.raises(UsageError, match=r"^activation is only for model_name custom"):
        load_clip("demo", activation="gelu")
