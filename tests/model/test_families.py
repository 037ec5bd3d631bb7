"""Models of open_clip and timm: the same squares and features as with their own code."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import HubServer, Repo, use_empty_cache, use_hub
from loopback_servers import serve
from numpy.typing import NDArray
from PIL import Image
from run_cli import call
from video_factories import numbered_frames, write_video

import rayclip
from rayclip.errors import UsageError
from rayclip.model import open_clip_tables
from rayclip.model.models import describe
from rayclip.model.open_clip import MODES
from rayclip.model.preprocess import Resizing

open_clip = pytest.importorskip("open_clip", reason="the extra open_clip is not installed")
timm = pytest.importorskip("timm", reason="the extra open_clip is not installed")
torch = pytest.importorskip("torch")

TEXTS = ["a red circle", "Two DOGS, smiling!", "a photo of a lighthouse at night"]
WORDS = ["a", "red", "circle", "two", "dogs", "smiling", "photo", "of", "lighthouse", "at", "night"]
SMALL_TEXT = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
VIT = {
    "embed_dim": 48,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": SMALL_TEXT,
}
SIGLIP = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 160,
        "timm_model_name": "test_vit",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        **SMALL_TEXT,
        "vocab_size": 32,
        "hf_tokenizer_name": "nobody/tokenizer",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
    },
}
RESNET = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
    "text_cfg": SMALL_TEXT,
}
CONVNEXT = {
    "embed_dim": 40,
    "vision_cfg": {
        "image_size": 96,
        "timm_model_name": "test_convnext",
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
    },
    "text_cfg": SMALL_TEXT,
}
HALVES = {"mean": [0.5] * 3, "std": [0.5] * 3}
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ViT": (VIT, {}),
    "SigLIP": (SIGLIP, {**HALVES, "interpolation": "bicubic", "resize_mode": "squash"}),
    "ResNet": (RESNET, {"interpolation": "bilinear", "resize_mode": "shortest"}),
    "ConvNeXt": (CONVNEXT, {"resize_mode": "longest", "fill_color": 128, **HALVES}),
}


def tokenizer_files() -> dict[str, bytes]:
    """A tokenizer of transformers with a few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: number for number, word in enumerate(["<pad>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    return {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(config).encode(),
    }


def randomised(model: Any) -> Any:
    """Give every weight a value, also those that are zeros or ones in a new model."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point() and not name.startswith("logit"):
                value += 0.02 * torch.randn(value.shape, generator=generator)
                if "var" in name:
                    value.abs_()
    return model.eval()


def folder_of(name: str, folder: Path, suffix: str = ".safetensors") -> Path:
    """A folder as open_clip saves models in, with random weights."""
    from safetensors.torch import save_file

    config, preprocess = MODELS[name]
    torch.manual_seed(0)
    folder.mkdir()
    content = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    for file, data in tokenizer_files().items():
        (folder / file).write_bytes(data)
    model = randomised(open_clip.create_model(f"local-dir:{folder}"))
    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    if suffix == ".safetensors":
        save_file(tensors, folder / "open_clip_model.safetensors")
    else:
        torch.save(tensors, folder / "open_clip_pytorch_model.bin")
    return folder


def pictures() -> Iterator[Image.Image]:
    """Landscape, portrait, square and small pictures."""
    for number, (width, height) in enumerate([(320, 180), (120, 200), (96, 96), (50, 40)]):
        coarse = np.random.default_rng(number).integers(0, 256, (9, 9, 3), np.uint8)
        yield Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def centred_cosines(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """Cosines of features around their mean, which tell more than those of the features."""
    mean = other.mean(axis=0)
    one, other = one - mean, other - mean
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines: NDArray[Any] = (one * other).sum(axis=1) / lengths
    return cosines


@contextmanager
def rows_first() -> Iterator[None]:
    """Make Pillow resize the rows before the columns, as rayclip does; by itself, it resizes the
    columns of some tall pictures first from version 13 on."""
    resize = Image.Image.resize

    def in_two_calls(self: Image.Image, size: tuple[int, int], resample: Any) -> Image.Image:
        return resize(resize(self, (size[0], self.height), resample), size, resample)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", in_two_calls)
        yield


def assert_equals_own_code(
    model: rayclip.LoadedModel, transform: Any, encode_image: Callable[[Any], Any]
) -> None:
    """The same squares, byte for byte, and the same features, picture by picture."""
    *steps, to_tensor, normalise = transform.transforms
    squares, features = [], []
    for picture in pictures():
        own = picture
        with rows_first():
            for step in steps:
                own = step(own)
        square = model.preprocess(picture)
        assert np.array_equal(square, np.asarray(own))
        squares.append(square)
        with torch.inference_mode():
            features.append(encode_image(normalise(to_tensor(own))[None])[0].numpy())
    found = model.encode_image(np.stack(squares))
    assert found.dtype == np.float32
    assert centred_cosines(found, np.stack(features)).min() >= 0.9999


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_of_open_clip_gives_what_its_own_code_gives(name: str, tmp_path: Path) -> None:
    folder = folder_of(name, tmp_path / "model")
    own, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    own = own.eval()
    model = rayclip.load_encoder(f"local-dir:{folder}", device="cpu")
    assert_equals_own_code(model, transform, own.encode_image)

    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    with torch.inference_mode():
        texts = own.encode_text(tokens).numpy()
    assert centred_cosines(model.encode_text(TEXTS), texts).min() >= 0.9999
    assert model.logit_scale == pytest.approx(own.logit_scale.exp().item())
    if own.logit_bias is None:
        assert (model.probability, model.logit_bias) == ("softmax", 0)
    else:
        assert (model.probability, model.logit_bias) == ("sigmoid", own.logit_bias.item())


def test_weights_in_torch_s_format_give_the_same(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    one, other = (
        rayclip.load_encoder(f"local-dir:{folder_of('ViT', tmp_path / suffix, suffix)}")
        for suffix in (".safetensors", ".bin")
    )
    assert np.array_equal(one.encode_image(frames), other.encode_image(frames))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_near(precision: Any, tmp_path: Path) -> None:
    name = f"local-dir:{folder_of('SigLIP', tmp_path / 'model')}"
    frames = np.random.default_rng(0).integers(0, 256, (4, 160, 160, 3), np.uint8)
    full = rayclip.load_encoder(name, device="cpu").encode_image(frames)
    half = rayclip.load_encoder(name, device="cpu", precision=precision).encode_image(frames)
    assert half.dtype == np.float32
    assert (half != full).any()
    assert centred_cosines(half, full).min() >= 0.99


TIMM_MODELS = ["test_vit.r160_in1k", "test_convnext.r160_in1k", "test_vit.r160_in1k@128"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub that has a tiny model of timm for each name; this process uses it."""
    from safetensors.torch import save

    server = HubServer()
    for name in {name.partition("@")[0] for name in TIMM_MODELS}:
        torch.manual_seed(0)
        model = randomised(timm.create_model(name))
        server.repos[f"timm/{name}"] = Repo({"model.safetensors": save(model.state_dict())})
    with serve(server):
        use_empty_cache(tmp_path / "home", monkeypatch)
        use_hub(server.url, monkeypatch)
        yield server


def test_timm_gives_what_its_own_code_gives(hub: HubServer) -> None:
    shapes = []
    for name in TIMM_MODELS:
        model = rayclip.load_encoder(f"timm:{name}", device="cpu")
        name, _, n_px = name.partition("@")
        size = {"img_size": int(n_px)} if n_px else {}
        own = timm.create_model(name, pretrained=True, num_classes=0, **size).eval()
        config = timm.data.resolve_model_data_config(own, size)
        assert_equals_own_code(model, timm.data.create_transform(**config), own)
        shapes.append((model.n_px, model.dim, model.context_length))
    assert shapes == [(160, 64, None), (160, 64, None), (128, 64, None)]
    assert hub.downloads["model.safetensors"] == 2  # the third is cached


def refusal(name: str) -> str:
    with pytest.raises(UsageError) as caught:
        describe(name)
    assert str(caught.value).count("\n") == 0
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("open_clip:ViT-B-32", "names no weights: say open_clip:ARCH/TAG"),
        ("open_clip:ViT-B-33/openai", "has no architecture 'ViT-B-33'; it has ViT-B-32"),
        (
            "open_clip:ViT-B-32/nowhere",
            "no weights 'nowhere' of ViT-B-32; it has openai, ",
        ),
        ("open_clip:ViT-S-32/openai", "it has no published weights"),
        ("local-dir:/nowhere", "The folder /nowhere of local-dir: has no open_clip_config.json"),
        (
            "timm:vit_smal_patch16_224",
            "no model 'vit_smal_patch16_224'; it has vit_small_p",
        ),
        ("timm:test_vit.r160_in1k@big", "must be 1 to 4096 pixels: timm:test_vit.r160_in1k@224"),
        ("timm:test_vit.r160_in1k@100000", "must be 1 to 4096 pixels"),
        ("timm:test_vit.r160_in1k@5", "cannot encode 5 pixels"),
        ("timm:gemma4_vit_167m_enc.gemma4_e4b_it", "has no features for a whole frame"),
    ],
)
def test_a_wrong_name_gets_one_sentence(name: str, said: str) -> None:
    assert said in refusal(name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vision_cfg": {**VIT["vision_cfg"], "image_size": [32, 64]}}, "of 64x32 pixels"),
        ({"vision_cfg": None}, "it has no vision_cfg"),
        ({"text_cfg": None}, "it has no text_cfg"),
        ({"vision_cfg": {**VIT["vision_cfg"], "image_size": "big"}}, "is not one of open_clip"),
        ({"embed_dim": None}, "is not one of open_clip"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {**VIT, **change}}))
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"")
    assert said in refusal(f"local-dir:{tmp_path}")


@pytest.mark.parametrize(
    ("preprocess", "said"),
    [
        (None, "it has no preprocess_cfg"),
        ({"resize_mode": "fold"}, "is not one of open_clip (KeyError('fold'))"),
        ({"interpolation": "nearest"}, "wants pictures resized with 'nearest'"),
    ],
)
def test_a_folder_with_preprocessing_that_rayclip_lacks_is_refused(
    preprocess: Any, said: str, tmp_path: Path
) -> None:
    config = {"model_cfg": VIT, "preprocess_cfg": preprocess}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"")
    assert said in refusal(f"local-dir:{tmp_path}")


class _Code:
    """It makes a folder if it is unpickled without care."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._folder,)


def test_code_in_weights_is_refused_and_never_runs(tmp_path: Path) -> None:
    folder = folder_of("ViT", tmp_path / "model", ".bin")
    torch.save({"code": _Code(tmp_path / "made")}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(UsageError, match="hold more than tensors, such as code, which is never"):
        rayclip.load_encoder(f"local-dir:{folder}", device="cpu")
    assert not (tmp_path / "made").exists()


def test_weights_that_do_not_fit_and_damaged_ones_get_one_sentence(tmp_path: Path) -> None:
    folder = folder_of("ViT", tmp_path / "model")
    other = folder_of("ResNet", tmp_path / "other") / "open_clip_model.safetensors"
    for content in (other.read_bytes(), b"no tensors" * 10):
        (folder / "open_clip_model.safetensors").write_bytes(content)
        with pytest.raises(UsageError, match="do not belong together") as caught:
            rayclip.load_encoder(f"local-dir:{folder}", device="cpu")
        assert "\n" not in str(caught.value)


def test_a_folder_without_its_tokenizer_encodes_frames_and_names_what_texts_lack(
    tmp_path: Path,
) -> None:
    folder = folder_of("SigLIP", tmp_path / "model")
    for name in tokenizer_files():
        (folder / name).unlink()
    model = rayclip.load_encoder(f"local-dir:{folder}", device="cpu")
    assert model.encode_image(np.zeros((1, 160, 160, 3), np.uint8)).shape == (1, 64)
    with pytest.raises(UsageError, match="There is no tokenizer with local-dir:"):
        model.encode_text(TEXTS)


def test_a_mean_may_be_one_number_for_all_channels(tmp_path: Path) -> None:
    folder = folder_of("ViT", tmp_path / "model")
    frames = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    features = []
    for value in (0.5, [0.5] * 3):
        config = {"model_cfg": VIT, "preprocess_cfg": {"mean": value, "std": value}}
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        features.append(rayclip.load_encoder(f"local-dir:{folder}").encode_image(frames))
    assert np.array_equal(*features)


def test_a_folder_without_weights_or_configuration_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "open_clip_config.json"
    config.write_text("{")
    assert "is not a JSON file" in refusal(f"local-dir:{tmp_path}")
    config.write_text("{}")
    assert "has no model_cfg" in refusal(f"local-dir:{tmp_path}")
    config.write_text(json.dumps({"model_cfg": VIT}))
    assert "has no weights" in refusal(f"local-dir:{tmp_path}")


def test_a_changed_folder_is_refused(tmp_path: Path) -> None:
    from rayclip.model.loading import load_spec

    folder = folder_of("ViT", tmp_path / "model")
    spec = describe(f"local-dir:{folder}")
    with (folder / "open_clip_model.safetensors").open("ab") as file:
        file.write(b"more")
    with pytest.raises(UsageError, match="differs from the one that was checked"):
        load_spec(spec, "cpu", None)


def test_published_models_are_described_without_importing_open_clip_or_torch() -> None:
    program = (
        "import sys\nfrom rayclip.model import open_clip_tables as tables\n"
        "print(len(tables.published()), tables.architecture('ViT-B-16-SigLIP2')['embed_dim'])\n"
        "print({'open_clip', 'torch', 'timm', 'huggingface_hub'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    counts, imported = done.stdout.splitlines()
    assert counts == f"{len(open_clip.pretrained._PRETRAINED)} 768"
    assert imported == "set()"


def test_every_published_model_has_a_known_way_to_resize() -> None:
    assert {
        (weights["resize_mode"], weights["interpolation"])
        for tags in open_clip_tables.published().values()
        for weights in tags.values()
    } <= {*itertools.product(MODES, ("bicubic", "bilinear"))}


def test_missing_packages_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_clip_tables, "find_spec", lambda name: None)
    assert "pip install 'rayclip[open_clip]'" in refusal("open_clip:ViT-B-32/openai")
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install 'rayclip[open_clip]'" in refusal("timm:test_vit.r160_in1k")


def test_a_margin_is_cropped_as_timm_crops_it() -> None:
    from rayclip.model.timm import to_resizing

    settings = {"crop_pct": 0.875, "crop_mode": "center", "interpolation": "bilinear"}
    assert to_resizing({**settings, "mean": (0.5,) * 3}, 224, "timm:x") == Resizing(
        224, "shorter", "bilinear", (128, 128, 128), 32
    )


# ---- runs ----


def test_a_run_saves_what_the_model_gives_and_resumes_only_with_it(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", numbered_frames(3))
    folder = folder_of("SigLIP", tmp_path / "small")
    words = ["extract", video, "--model-name", f"local-dir:{folder}", "--address", "none"]
    words += ["--output-path", tmp_path / "out", "--on-extraction", "save_numpy"]
    words += ["--show-pred", "--pred-texts", json.dumps(TEXTS)]
    done = call(*words)
    assert done.status == 0, done.stderr

    saved = tmp_path / "out" / "clip" / "local-dir_small"
    model = rayclip.load_encoder(f"local-dir:{folder}", device="cpu")
    squares = [model.preprocess(rgb) for _, rgb in rayclip.iter_frames(video)]
    assert np.array_equal(np.load(saved / "a_clip.npy"), model.encode_image(squares))
    record = json.loads((saved / "run.json").read_text())
    assert record["family"] == "open_clip"
    assert record["dim"] == 64
    _, *rows = (saved / "a_pred.csv").read_text().splitlines()
    probabilities = [float(row.rpartition(",")[2]) for row in rows]
    assert sum(probabilities[:3]) < 0.5  # each is a sigmoid of its own

    shutil.rmtree(folder)
    folder_of("ViT", folder)
    changed = call(*words)
    assert changed.status == 2
    assert "small was made with weights_sha256=" in changed.stderr


def test_a_run_of_timm_s_model_refuses_texts_and_goes_on_with_the_commit_of_its_weights(
    hub: HubServer, tmp_path: Path
) -> None:
    name = "test_vit.r160_in1k"
    video, output = write_video(tmp_path / "a.mp4", numbered_frames(3)), tmp_path / "out"
    words = ["extract", video, "--model-name", f"timm:{name}", "--address", "none"]
    words += ["--output-path", output, "--on-extraction", "save_numpy"]
    refused = call(*words, "--show-pred")
    assert refused.status == 2
    assert f"timm:{name} has no text encoder" in refused.stderr

    done = call(*words)
    assert done.status == 0, done.stderr
    saved = output / "clip" / f"timm_{name}"
    assert np.load(saved / "a_clip.npy").shape == (3, 64)
    record = json.loads((saved / "run.json").read_text())
    assert record["revision"] == hub.repos[f"timm/{name}"].commit()
    content = hub.repos[f"timm/{name}"].files["model.safetensors"]
    assert record["weights_sha256"] == hashlib.sha256(content).hexdigest()
    assert record["license"] == "apache-2.0"

    # from now on there is a newer commit with other weights
    hub.repos[f"timm/{name}"].files["model.safetensors"] = content[:-4] + bytes(4)
    assert hub.repos[f"timm/{name}"].commit() != record["revision"]
    resumed = call(*words, write_video(tmp_path / "b.mp4", numbered_frames(2)))
    assert resumed.status == 0, resumed.stderr
    assert np.load(saved / "b_clip.npy").shape == (2, 64)
    assert json.loads((saved / "run.json").read_text())["revision"] == record["revision"]

    picture = tmp_path / "a.png"
    ((_, rgb),) = rayclip.iter_frames(video, end=1 / 25)
    Image.fromarray(rgb).save(picture)
    by_picture = call("search", output, "--image", picture, "--top", "1", "--json")
    (moment,) = json.loads(by_picture.stdout)
    assert moment["best_s"] == 0
    assert moment["score"] == pytest.approx(1, abs=1e-3)
    by_text = call("search", output, "a red circle")
    assert "has no text encoder: search with pictures (image)" in by_text.stderr
    with pytest.raises(UsageError, match="no text encoder: choose one that has, or no texts"):
        rayclip.load_encoder(f"timm:{name}").encode_text(["a"])


def test_a_run_of_a_repository_downloads_it_once_and_says_if_it_is_for_research(
    hub: HubServer, tmp_path: Path
) -> None:
    folder = folder_of("SigLIP", tmp_path / "model")
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    tokenizer = {name: files.pop(name) for name in tokenizer_files()}
    hub.repos["org/small"] = Repo(files, license="cc-by-nc-4.0")
    hub.repos["nobody/tokenizer"] = Repo(tokenizer)
    video = write_video(tmp_path / "a.mp4", numbered_frames(3))
    words = ["extract", video, "--model-name", "hf-hub:org/small", "--address", "none"]
    words += ["--output-path", tmp_path / "out", "--on-extraction", "save_numpy"]
    done = call(*words, "--show-pred", "--pred-texts", json.dumps(TEXTS))
    assert done.status == 0, done.stderr
    sentence = (
        "The weights of hf-hub:org/small are for research only: their license is cc-by-nc-4.0."
    )
    assert done.stderr.count(sentence) == 1
    assert {name: hub.downloads[name] for name in (*files, *tokenizer)} == dict.fromkeys(
        (*files, *tokenizer), 1
    )
    local = rayclip.load_encoder(f"local-dir:{folder}", device="cpu")
    squares = [local.preprocess(rgb) for _, rgb in rayclip.iter_frames(video)]
    saved = np.load(tmp_path / "out" / "clip" / "hf-hub_org_small" / "a_clip.npy")
    assert np.array_equal(saved, local.encode_image(squares))
