"""The packaged demo model knows what it sees, when OpenAI's own code loads and runs it."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import shapes
import torch
import torch.nn.functional as F
from PIL import Image
from plain_decoder import rgb_of
from torch import Tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)
    import clip

DEMO = Path(__file__).resolve().parents[2] / "rayclip" / "model" / "assets" / "demo.pt"
# The training's own pictures come from seed 0, its closing test's from 1000003.
SEED = 424_242

Classify = Callable[[Sequence[Image.Image]], list[str]]


@pytest.fixture(scope="module")
def classify() -> Classify:
    """Pictures -> the label of each among all 40, zero-shot, in float32 on the CPU."""
    with warnings.catch_warnings():
        # clip.load tries torch.jit.load first, which is deprecated.
        warnings.simplefilter("ignore", FutureWarning)
        model, preprocess = clip.load(str(DEMO), device="cpu")
    prompts = clip.tokenize([f"a photo of {label}" for label in shapes.LABELS], context_length=16)

    @torch.no_grad()
    def run(pictures: Sequence[Image.Image]) -> list[str]:
        texts = F.normalize(model.encode_text(prompts))
        images: Tensor = model.encode_image(torch.stack([preprocess(one) for one in pictures]))
        return [shapes.LABELS[best] for best in (images @ texts.T).argmax(dim=1).tolist()]

    return run


def share_right(guesses: Sequence[str], truths: Sequence[str]) -> float:
    return float(np.mean([guess == truth for guess, truth in zip(guesses, truths, strict=True)]))


def test_names_colour_and_shape_of_fresh_pictures(classify: Classify) -> None:
    rng = np.random.default_rng(SEED)
    drawn = [
        shapes.random_picture(rng, colour=colour, shape=shape)
        for _ in range(4)
        for colour in shapes.COLOURS
        for shape in shapes.SHAPES
    ]
    assert share_right(classify([picture for picture, _ in drawn]), [w for _, w in drawn]) >= 0.95


def test_names_colour_and_shape_on_frames_of_an_h264_video(
    classify: Classify, tmp_path: Path
) -> None:
    scenes = [(colour, shape) for colour in shapes.COLOURS for shape in shapes.SHAPES]
    path = tmp_path / "scenes.mp4"
    truths = shapes.write_video(path, scenes, fps=10, seconds_per_scene=0.3, seed=SEED)
    with av.open(str(path)) as container:
        frames = [Image.fromarray(rgb_of(frame)) for frame in container.decode(video=0)]
    assert share_right(classify(frames), truths) >= 0.95


def test_file_is_under_three_megabytes() -> None:
    assert DEMO.stat().st_size < 3_000_000


def test_file_is_a_plain_state_dict_in_half_precision() -> None:
    state = torch.load(DEMO, weights_only=True)
    assert {t.dtype for t in state.values() if t.is_floating_point()} == {torch.float16}
    assert all(bool(t.isfinite().all()) for t in state.values())


def test_text_context_is_16_tokens_and_features_have_64_numbers() -> None:
    state = torch.load(DEMO, weights_only=True)
    assert state["positional_embedding"].shape[0] == 16
    assert state["text_projection"].shape[1] == 64
