"""Features are those of OpenAI's own code, whatever else is in the batch; errors are sentences."""

import hashlib
import io
import os
import pickle
import re
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rayclip.errors import UsageError
from rayclip.model import loaded_model, openai
from rayclip.model.loaded_model import LoadedModel
from rayclip.model.loading import load_clip, load_spec
from rayclip.model.models import CustomWeights, describe
from rayclip.model.openai import (
    DEFAULT_CUSTOM_WEIGHTS,
    DEMO_DIM,
    DEMO_N_PX,
    DEMO_WEIGHTS,
    MODEL_NAMES,
    OFFICIAL_MODELS,
)
from rayclip.model.precision import CPU_BATCH_SIZE, gpu_batch_size, peak_bytes_per_frame
from rayclip.model.preprocess import Resizing, resize

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # clip imports pkg_resources, which is deprecated
    import clip

Features = NDArray[np.float32]
Load = Callable[..., LoadedModel]

SIZES = [(320, 240), (240, 320), (641, 359), (224, 224), (97, 131), (33, 300), (16, 9)]
TEXTS = ["a photo of a red circle", "", "Zwei   Katzen & 1 Hund!"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def draw_pictures() -> list[Image.Image]:
    """A picture of each size: rectangles of random colours, or (every third one) noise."""
    rng = np.random.default_rng(0)
    pictures = []
    for number, (width, height) in enumerate(SIZES):
        picture = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        if number % 3:
            canvas = ImageDraw.Draw(picture)
            canvas.rectangle((0, 0, width, height), fill=random_colour(rng))
            for _ in range(12):
                (left, right), (top, bottom) = (
                    np.sort(rng.integers(0, side, 2)).tolist() for side in (width, height)
                )
                canvas.rectangle((left, top, right, bottom), fill=random_colour(rng))
        pictures.append(picture)
    return pictures


def random_colour(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(rng.integers(0, 256, 3).tolist())


def frames_for(model: LoadedModel) -> NDArray[np.uint8]:
    return np.stack([resize(np.asarray(one), Resizing(model.n_px)) for one in draw_pictures()])


def openai_load(checkpoint: Path) -> tuple[Any, Callable[[Image.Image], torch.Tensor]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.load is deprecated
        return clip.load(str(checkpoint), device="cpu", jit=False)


def openai_features(checkpoint: Path) -> Features:
    """Of the drawn pictures, one at a time."""
    model, preprocess = openai_load(checkpoint)
    with torch.no_grad():
        batches = [model.encode_image(preprocess(one)[None]) for one in draw_pictures()]
    return torch.cat(batches).numpy()


def without_mean(features: Features) -> Features:
    return features - features.mean(axis=0)


def lengths(features: Features) -> Features:
    return np.linalg.norm(features, axis=1)


@dataclass(frozen=True)
class Loaded:
    """A checkpoint, its model on two frames at a time, and the drawn pictures as it takes them."""

    checkpoint: Path
    model: LoadedModel
    frames: NDArray[np.uint8]
    features: Features


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((checkpoints.wide_vit, checkpoints.save_torchscript), id="ViT-archive"),
        pytest.param((checkpoints.small_resnet, checkpoints.save_torchscript), id="ResNet-archive"),
    ],
)
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Loaded]:
    make, save = request.param
    checkpoint = save(make(), tmp_path_factory.mktemp("weights") / "CLIP.pt")
    model = load_clip("custom", str(checkpoint), "cpu", batch_size=2)
    frames = frames_for(model)
    yield Loaded(checkpoint, model, frames, model.encode_image(frames))
    checkpoint.unlink()  # many megabytes, which pytest would keep


class TestImages:
    def test_features_of_every_picture_are_those_of_openais_own_code(self, loaded: Loaded) -> None:
        ours, theirs = loaded.features, openai_features(loaded.checkpoint)
        differences = without_mean(theirs)
        assert (lengths(differences) > 0.1 * lengths(theirs)).all(), "all pictures look the same"
        products = (without_mean(ours) * differences).sum(axis=1)
        cosines = products / lengths(without_mean(ours)) / lengths(differences)
        assert cosines.min() >= 0.9999
        np.testing.assert_allclose(lengths(ours), lengths(theirs), rtol=1e-4)

    def test_features_do_not_depend_on_the_batch_or_position(self, loaded: Loaded) -> None:
        backwards = loaded.model.encode_image(loaded.frames[3::-1])
        alone = loaded.model.encode_image(loaded.frames[3:4])
        np.testing.assert_array_equal(backwards[::-1], loaded.features[:4])
        np.testing.assert_array_equal(alone, loaded.features[3:4])


@pytest.fixture(scope="module")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of models that run in milliseconds."""
    folder = tmp_path_factory.mktemp("weights")
    return {
        "demo": DEMO_WEIGHTS,
        "small ViT": checkpoints.save_state_dict(checkpoints.small_vit(), folder / "vit.pt"),
        "small ResNet": checkpoints.save_state_dict(checkpoints.small_resnet(), folder / "rn.pt"),
    }


@pytest.fixture(scope="module")
def load(small_models: dict[str, Path]) -> Load:
    """Load each of them once for each batch size and precision."""

    @cache
    def load(name: str, batch_size: int | None = None, precision: Any = "auto") -> LoadedModel:
        return load_clip("custom", str(small_models[name]), "cpu", batch_size, precision)

    return load


SMALL_MODELS = ["demo", "small ViT", "small ResNet"]


@pytest.mark.parametrize("name", SMALL_MODELS)
class TestSmallModels:
    @pytest.mark.parametrize("batch_size", [1, 3, None])
    def test_a_frame_has_the_same_bits_alone_and_in_any_batch_and_order(
        self, name: str, batch_size: int | None, load: Load
    ) -> None:
        model = load(name, batch_size)
        frames = frames_for(model)
        features = model.encode_image(frames)
        order = np.random.default_rng(0).permutation(len(frames))
        np.testing.assert_array_equal(model.encode_image(frames[order]), features[order])
        for number in range(len(frames)):
            alone = model.encode_image(frames[number : number + 1])
            np.testing.assert_array_equal(alone, features[number : number + 1])
        pushed_on = model.encode_image(np.concatenate([frames[-2:], frames]))
        np.testing.assert_array_equal(pushed_on[2:], features)

    def test_a_frame_has_the_same_bits_in_any_order_on_two_threads(
        self, name: str, load: Load
    ) -> None:
        model = load(name, 5)
        frames = frames_for(model)[:5]
        torch.set_num_threads(2)
        try:
            features, backwards = model.encode_image(frames), model.encode_image(frames[::-1])
        finally:
            torch.set_num_threads(1)
        np.testing.assert_array_equal(backwards[::-1], features)

    def test_each_frame_has_one_row_of_dim_numbers(self, name: str, load: Load) -> None:
        model = load(name, 3)
        for count in (1, 3, 4, 6):
            frames = np.zeros((count, model.n_px, model.n_px, 3), np.uint8)
            features = model.encode_image(frames)
            assert (features.shape, features.dtype) == ((count, model.dim), np.float32)

    def test_input_frames_are_not_modified(self, name: str, load: Load) -> None:
        model = load(name)
        frames = frames_for(model)
        frames.flags.writeable = False
        model.encode_image(frames)


@pytest.mark.parametrize("name", SMALL_MODELS)
class TestTexts:
    def test_text_features_are_those_of_openais_own_code(
        self, name: str, small_models: dict[str, Path], load: Load
    ) -> None:
        theirs, _ = openai_load(small_models[name])
        ours = load(name)
        with torch.no_grad():
            expected = theirs.encode_text(clip.tokenize(TEXTS, theirs.context_length)).numpy()
        features = ours.encode_text(TEXTS)
        assert features.dtype == np.float32
        np.testing.assert_array_equal(features, expected)

    def test_a_text_that_is_too_long_is_named_with_the_length_that_fits(
        self, name: str, load: Load
    ) -> None:
        model = load(name)
        too_long = "a circle and " * model.context_length
        with pytest.raises(UsageError) as caught:
            model.encode_text(["a square", too_long, "a star"])
        assert too_long in str(caught.value)
        assert f"{model.context_length} tokens" in str(caught.value)
        assert "square" not in str(caught.value)


class TestLoading:
    @pytest.mark.parametrize("device", ["cpu", None])
    def test_without_a_gpu_it_is_in_full_precision_on_the_cpu(
        self, device: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert load_clip("demo", device=device).device == "cpu"
        module = openai.load_module(describe("demo"), "cpu", "auto")
        assert {one.dtype for one in module.parameters()} == {torch.float32}

    def test_the_batch_size_is_the_one_asked_for_or_fits_the_device(self) -> None:
        assert load_clip("demo", device="cpu").batch_size == CPU_BATCH_SIZE
        assert load_clip("demo", device="cpu", batch_size=7).batch_size == 7

    def test_code_in_a_torchscript_archive_is_not_called(self, tmp_path: Path) -> None:
        class Liar(checkpoints.CLIP):
            def encode_image(self, image: torch.Tensor) -> torch.Tensor:
                return torch.zeros(len(image), 48, dtype=torch.float16)

        clip_model = checkpoints.small_vit()
        tensors = checkpoints.save_state_dict(clip_model, tmp_path / "tensors.pt")
        clip_model.__class__ = Liar
        archive = checkpoints.save_torchscript(clip_model, tmp_path / "archive.pt")
        model = load_clip("custom", str(archive), "cpu")
        expected = load_clip("custom", str(tensors), "cpu").encode_image(frames_for(model))
        np.testing.assert_array_equal(model.encode_image(frames_for(model)), expected)

    def test_a_state_dict_in_torchs_old_file_format_is_read(self, tmp_path: Path) -> None:
        checkpoint = tmp_path / "old.pt"
        state_dict = checkpoints.small_vit().state_dict()
        torch.save(state_dict, checkpoint, _use_new_zipfile_serialization=False)
        assert load_clip("custom", str(checkpoint), "cpu").n_px == 40


MIN_COSINES = {"fp16": 0.9999, "bf16": 0.998}  # to fp32, the mean over the pictures taken away


def centred_cosines(ours: Features, theirs: Features) -> Features:
    ours, theirs = without_mean(ours), without_mean(theirs)
    products: Features = (ours * theirs).sum(axis=1)
    return products / lengths(ours) / lengths(theirs)


@pytest.mark.parametrize("name", SMALL_MODELS)
@pytest.mark.parametrize("precision", [*MIN_COSINES])
class TestHalves:
    def test_features_are_close_to_those_of_fp32(
        self, precision: Any, name: str, load: Load
    ) -> None:
        full, half = load(name), load(name, precision=precision)
        frames = frames_for(full)
        features, expected = half.encode_image(frames), full.encode_image(frames)
        assert features.dtype == np.float32
        assert (features != expected).any()
        assert centred_cosines(features, expected).min() >= MIN_COSINES[precision]

    def test_a_frame_has_the_same_bits_alone_and_in_any_order(
        self, precision: Any, name: str, load: Load
    ) -> None:
        model = load(name, 3, precision)
        frames = frames_for(model)
        features = model.encode_image(frames)
        np.testing.assert_array_equal(model.encode_image(frames[::-1])[::-1], features)
        for number in range(len(frames)):
            alone = model.encode_image(frames[number : number + 1])
            np.testing.assert_array_equal(alone, features[number : number + 1])

    def test_texts_use_the_precision_too(self, precision: Any, name: str, load: Load) -> None:
        half = load(name, precision=precision).encode_text(TEXTS)
        full = load(name).encode_text(TEXTS)
        assert half.dtype == np.float32
        assert (half != full).any()
        products = (half * full).sum(axis=1)
        assert (products / lengths(half) / lengths(full)).min() >= 0.999

    def test_normalisations_stay_in_fp32_as_openai_has_them(
        self, precision: Any, name: str, small_models: dict[str, Path]
    ) -> None:
        spec = describe("custom", CustomWeights(str(small_models[name])))
        model = openai.load_module(spec, "cpu", precision)
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
        theirs, _ = openai_load(small_models[name])
        checkpoints.convert_weights(theirs)
        expected = {
            name: dtype if one.dtype == torch.float16 else torch.float32
            for name, one in theirs.named_parameters()
        }
        assert {name: one.dtype for name, one in model.named_parameters()} == expected


class TestFullPrecision:
    def test_on_a_cpu_auto_is_fp32(self) -> None:
        auto, full = load_clip("demo", device="cpu"), load_clip("demo", None, "cpu", None, "fp32")
        frames = frames_for(auto)
        np.testing.assert_array_equal(auto.encode_image(frames), full.encode_image(frames))

    def test_an_unknown_precision_is_refused_with_the_valid_ones(self) -> None:
        with pytest.raises(UsageError) as caught:
            load_clip("demo", device="cpu", precision="fp8")  # type: ignore[arg-type]
        assert str(caught.value) == ("precision must be one of auto, fp32, fp16, bf16, not 'fp8'.")


@pytest.fixture(scope="module")
def compiled_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedModel]:
    """A small ViT compiled in bf16, whose passes run on two threads."""
    folder = tmp_path_factory.mktemp("compiled")
    checkpoint = checkpoints.save_state_dict(checkpoints.small_vit(), folder / "CLIP.pt")
    spec = describe("custom", CustomWeights(str(checkpoint)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
        yield load_spec(spec, "cpu", 2, 2, "bf16", compile=True)


class TestCompiled:
    def test_features_are_close_to_those_of_fp32(
        self, compiled_model: LoadedModel, small_models: dict[str, Path]
    ) -> None:
        full = load_clip("custom", str(small_models["small ViT"]), "cpu")
        frames = frames_for(full)
        features = compiled_model.encode_image(frames)
        assert centred_cosines(features, full.encode_image(frames)).min() >= MIN_COSINES["bf16"]

    def test_a_frame_has_the_same_bits_on_any_thread_alone_and_in_any_order(
        self, compiled_model: LoadedModel
    ) -> None:
        frames = frames_for(compiled_model)
        features = compiled_model.encode_image(frames)
        for _ in range(10):
            np.testing.assert_array_equal(compiled_model.encode_image(frames[::-1])[::-1], features)
        alone = np.concatenate([compiled_model.encode_image(frame[None]) for frame in frames])
        np.testing.assert_array_equal(alone, features)

    def test_nothing_is_compiled_after_loading(self, compiled_model: LoadedModel) -> None:
        with torch.compiler.set_stance("fail_on_recompile"):
            compiled_model.encode_image(np.concatenate([frames_for(compiled_model)] * 4))

    def test_a_device_without_memory_for_a_batch_compiles_a_smaller_one(
        self, small_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried = []

        def short_of_memory(forward: Any) -> None:
            tried.append(forward.args[0])
            if tried[-1] > 4:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        monkeypatch.setattr(loaded_model, "call_compiled", short_of_memory)
        weights = str(small_models["small ViT"])
        model = load_clip("custom", weights, "cpu", 16, compile=True, activation="quickgelu")
        assert tried == [16, 8, 4]
        assert model.batch_size == 4
        assert model.notes == [
            "Not enough memory for batches of 16 frames: trying 8.",
            "Not enough memory for batches of 8 frames: trying 4.",
        ]


GIB = 2**30


class TestDefaultBatchSize:
    def test_it_is_constant_on_cpus(self) -> None:
        model = load_clip("demo", device="cpu")
        assert model.batch_size == CPU_BATCH_SIZE
        assert not model.notes

    def test_one_chosen_by_gpu_is_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gpu = SimpleNamespace(total_memory=80 * GIB)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
        load = openai.load_model
        monkeypatch.setattr(openai, "load_model", lambda file, *_: load(file, "cpu"))
        model = load_spec(describe("demo"), "cuda", None)
        assert model.batch_size == 256
        assert model.notes == ["batch size: 256, for a GPU of 80 GiB"]

    @pytest.mark.parametrize(
        ("memory", "frame_bytes", "expected"),
        [
            (8 * GIB, 3_000_000, 256),
            (80 * GIB, 3_000_000, 256),
            (80 * GIB, 80_000_000, 128),
            (16 * GIB, 80_000_000, 16),
            (1 * GIB, 80_000_000, 16),
            (8 * GIB, 8 * GIB // (8 * 64), 64),
            (8 * GIB, 8 * GIB // (8 * 64) + 1, 32),
        ],
    )
    def test_on_a_gpu_it_is_the_power_of_two_that_fits(
        self, memory: int, frame_bytes: int, expected: int
    ) -> None:
        assert gpu_batch_size(memory, frame_bytes) == expected

    @pytest.mark.parametrize(
        ("shape", "memory", "expected"),
        [
            pytest.param((512, 224, 12, 768, 32), 8 * GIB, 256, id="ViT-B/32-on-8-GB"),
            pytest.param((768, 336, 24, 1024, 14), 8 * GIB, 32, id="ViT-L/14@336px-on-8-GB"),
            pytest.param((768, 336, 24, 1024, 14), 80 * GIB, 256, id="ViT-L/14@336px-on-80-GB"),
            pytest.param((1024, 224, (3, 4, 6, 3), 64, None), 8 * GIB, 64, id="RN50-on-8-GB"),
            pytest.param(
                (1024, 448, (3, 15, 36, 10), 128, None), 16 * GIB, 16, id="RN50x64-on-16-GB"
            ),
        ],
    )
    def test_larger_models_get_smaller_batches(
        self, shape: tuple[Any, ...], memory: int, expected: int
    ) -> None:
        with torch.device("meta"):
            visual = checkpoints.CLIP(*shape, 77, 49408, 512, 8, 1).visual.half()
        assert gpu_batch_size(memory, peak_bytes_per_frame(visual)) == expected


class TestDescribe:
    @pytest.mark.parametrize(
        "save",
        [
            pytest.param(checkpoints.save_torchscript, id="archive"),
            pytest.param(checkpoints.save_state_dict, id="tensors"),
        ],
    )
    @pytest.mark.parametrize(
        ("make", "n_px", "dim"),
        [
            pytest.param(checkpoints.small_vit, 40, 48, id="ViT"),
            pytest.param(checkpoints.small_resnet, 96, 80, id="ResNet"),
        ],
    )
    def test_a_custom_model_is_what_its_checkpoint_holds(
        self,
        make: Callable[[], Any],
        save: Callable[..., Path],
        n_px: int,
        dim: int,
        tmp_path: Path,
    ) -> None:
        checkpoint = save(make(), tmp_path / "CLIP.pt")
        spec = describe("custom", CustomWeights(str(checkpoint)))
        assert (spec.model_name, spec.n_px, spec.dim) == ("custom", n_px, dim)
        assert spec.weights_sha256 == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        assert spec.checkpoint == str(checkpoint)

    @pytest.mark.parametrize("weights", [None, DEFAULT_CUSTOM_WEIGHTS])
    def test_custom_weights_are_relative_to_the_working_directory(
        self, weights: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checkpoint = tmp_path / DEFAULT_CUSTOM_WEIGHTS
        checkpoint.parent.mkdir(parents=True)
        checkpoints.save_state_dict(checkpoints.small_vit(), checkpoint)
        monkeypatch.chdir(tmp_path)
        assert describe("custom", CustomWeights(weights)).checkpoint == str(checkpoint)

    def test_the_demo_model_is_what_its_checkpoint_holds(self) -> None:
        spec = describe("demo")
        model, _ = openai_load(DEMO_WEIGHTS)
        assert (spec.n_px, spec.dim) == (DEMO_N_PX, DEMO_DIM)
        assert model.visual.input_resolution == DEMO_N_PX
        assert model.encode_image(torch.zeros(1, 3, DEMO_N_PX, DEMO_N_PX)).shape == (1, DEMO_DIM)
        assert spec.weights_sha256 == hashlib.sha256(DEMO_WEIGHTS.read_bytes()).hexdigest()

    def test_official_models_are_those_of_clip(self) -> None:
        assert [*OFFICIAL_MODELS] == clip.available_models()

    @pytest.mark.parametrize("name", clip.available_models())
    def test_an_official_checksum_is_the_one_in_the_models_address(self, name: str) -> None:
        assert describe(name).weights_sha256 == clip.clip._MODELS[name].split("/")[-2]


def refusal(weights: Path, content: bytes) -> str:
    """What is said about such a file after its name, which comes first."""
    weights.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load_clip("custom", str(weights), device="cpu")
    message = str(caught.value)
    assert message.startswith(f"{weights} ")
    return message.removeprefix(f"{weights} ")


def is_plain(said: str) -> bool:
    """The end of one sentence, without torch's advice to trust the file after all."""
    return bool(re.fullmatch(r"[^\n\x1b]{20,200}[^:.\s]\.", said)) and "weights_only" not in said


class Trap:
    """Unpickled by Python's own rules, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self._marker), "w")


def saved(value: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def scripted(module: torch.nn.Module) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        torch.jit.save(torch.jit.script(module), file)
    return file.getvalue()


def state_dict(**others: Any) -> dict[str, Any]:
    """A small CLIP's, where others take the place of tensors; dots are written as __."""
    given = {name.replace("__", "."): value for name, value in others.items()}
    together = {**checkpoints.small_vit().state_dict(), **given}
    return {name: value for name, value in together.items() if value is not None}


NO_CHECKPOINTS: dict[str, Callable[[], bytes]] = {
    "a text": lambda: b"hello world\n",
    "random bytes": lambda: np.random.default_rng(0).bytes(5000),
    "nothing": lambda: b"",
    "a zip of something else": lambda: zipped({"hello.txt": b"world"}),
    "half a download": lambda: saved(state_dict())[:100_000],
    "a pickled dict": lambda: pickle.dumps({"visual.proj": 1}),
    "a whole pickled model": lambda: saved(checkpoints.small_vit()),
    "arrays of numpy": lambda: saved({"text_projection": np.zeros((4, 4))}),
}
NO_CLIPS: dict[str, Callable[[], bytes]] = {
    "another model": lambda: saved(torch.nn.Linear(2, 2).state_dict()),
    "another model in TorchScript": lambda: scripted(torch.nn.Linear(2, 2)),
    "an empty dict": lambda: saved({}),
    "a tensor": lambda: saved(torch.zeros(3)),
    "a list": lambda: saved([torch.zeros(3)]),
    "a number for a tensor": lambda: saved(state_dict(text_projection=3)),
    "a vector for a matrix": lambda: saved(state_dict(text_projection=torch.zeros(3))),
}
INCOMPLETE_CLIPS: dict[str, Callable[[], bytes]] = {
    "a tensor is missing": lambda: saved(state_dict(token_embedding__weight=None)),
    "a layer is missing": lambda: saved(state_dict(visual__ln_pre__bias=None)),
    "a tensor too many": lambda: saved(state_dict(classifier=torch.zeros(3))),
    "a tensor of another size": lambda: saved(
        state_dict(visual__positional_embedding=torch.zeros(25, 64))
    ),
}
TRAPS: dict[str, Callable[[Trap], bytes]] = {
    "a pickle": pickle.dumps,
    "a pickle of an old protocol": lambda trap: pickle.dumps(trap, protocol=2),
    "a checkpoint": lambda trap: saved({"text_projection": trap}),
    "a checkpoint in the old format": lambda trap: saved(
        {"text_projection": trap}, _use_new_zipfile_serialization=False
    ),
    "a TorchScript archive": lambda trap: zipped(
        {
            "version": b"3",
            "constants.pkl": pickle.dumps(trap, protocol=2),
            "data.pkl": pickle.dumps(trap, protocol=2),
        }
    ),
}


def each(cases: dict[str, Any]) -> pytest.MarkDecorator:
    values = [pytest.param(case, id=name.replace(" ", "-")) for name, case in cases.items()]
    return pytest.mark.parametrize("content", values)


class TestWrongModels:
    @pytest.mark.parametrize("name", ["ViT-B/99", "vit-b/32", ""])
    def test_an_unknown_name_is_refused_with_the_valid_ones(self, name: str) -> None:
        with pytest.raises(UsageError) as caught:
            load_clip(name)
        assert repr(name) in str(caught.value)
        assert ", ".join(MODEL_NAMES) in str(caught.value)

    def test_missing_weights_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=re.escape(f"The checkpoint {tmp_path}/none.pt of ")):
            load_clip("custom", str(tmp_path / "none.pt"))

    def test_missing_default_weights_are_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UsageError, match=re.escape(str(tmp_path / DEFAULT_CUSTOM_WEIGHTS))):
            load_clip("custom")

    @each(NO_CLIPS)
    def test_a_checkpoint_of_something_else_is_refused_in_one_sentence(
        self, content: Callable[[], bytes], tmp_path: Path
    ) -> None:
        assert is_plain(refusal(tmp_path / "CLIP.pt", content()))

    @each(NO_CHECKPOINTS)
    def test_a_file_that_is_not_a_checkpoint_is_refused_in_one_sentence(
        self, content: Callable[[], bytes], tmp_path: Path
    ) -> None:
        assert is_plain(refusal(tmp_path / "CLIP.pt", content()))

    @each(INCOMPLETE_CLIPS)
    def test_a_clip_with_other_tensors_is_refused_by_name(
        self, content: Callable[[], bytes], tmp_path: Path
    ) -> None:
        assert refusal(tmp_path / "CLIP.pt", content())

    @each(TRAPS)
    def test_code_in_a_pickle_is_not_run(
        self, content: Callable[[Trap], bytes], tmp_path: Path
    ) -> None:
        marker = tmp_path / "trap"
        assert refusal(tmp_path / "CLIP.pt", content(Trap(marker)))
        assert not marker.exists()

    def test_the_trap_of_these_tests_works(self, tmp_path: Path) -> None:
        pickle.loads(pickle.dumps(Trap(tmp_path / "trap"))).close()
        assert (tmp_path / "trap").exists()


def run_python(code: str, *words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new process that shows every warning once."""
    return subprocess.run(
        [sys.executable, "-P", "-W", "default", "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
    )


class TestAnotherProcess:
    def test_encoding_prints_nothing_and_images_import_nothing_that_only_texts_need(
        self, tmp_path: Path
    ) -> None:
        archive = checkpoints.save_torchscript(checkpoints.small_vit(), tmp_path / "archive.pt")
        code = """
import sys
import numpy, rayclip
for name, weights in [("demo", None), ("custom", sys.argv[1])]:
    model = rayclip.load_clip(name, weights, device="cpu")
    model.encode_image(numpy.zeros((1, model.n_px, model.n_px, 3), numpy.uint8))
    if name == "demo":
        print({"torchvision", "clip", "pkg_resources"} & set(sys.modules))
    model.encode_text(["a photo of a red circle"])
"""
        process = run_python(code, archive)
        assert (process.stdout, process.stderr) == ("set()\n", "")

    def test_naming_a_model_imports_neither_torch_nor_ray_nor_clip(self) -> None:
        code = """
import sys
import rayclip, rayclip.model.models
rayclip.model.models.describe("ViT-B/32")
rayclip.model.models.describe("demo")
print({"torch", "ray", "clip"} & set(sys.modules))
"""
        assert run_python(code).stdout == "set()\n"
