"""Train the demo model: a small CLIP that knows 8 colours and 5 shapes.

    python scripts/train_demo_model.py

The weights in the package come from exactly this command, which takes less than ten minutes on one
core. The same seed gives the same file on the same machine and torch.
"""

import argparse
import io
import math
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import shapes
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

with warnings.catch_warnings():
    # clip imports pkg_resources, which warns about its deprecation.
    warnings.simplefilter("ignore", UserWarning)
    import clip
    from clip.clip import _transform as clip_preprocess
    from clip.model import CLIP

N_PX = 64
CONTEXT_LENGTH = 16
# At 1.5e-3, shapes are learned hundreds of steps later, and some colours' shapes never.
LEARNING_RATE = 8e-4
PICTURES_PER_LABEL = 2
TEMPLATES = ("a photo of {article} {label}", "a photo of {label}", "{article} {label}", "{label}")
# Pictures for the final test are never seen in training, for any training seed.
TEST_SEED = 1_000_003
MIN_ACCURACY = 0.95
DEFAULT_OUTPUT = Path(__file__).resolve().parent.parent / "rayclip" / "model" / "assets" / "demo.pt"


def new_model() -> CLIP:
    """An untrained CLIP: 64 x 64 pictures, 64-dimensional features, 16 tokens of text.

    The image encoder is a ModifiedResNet because a vision transformer of this size learns the
    colours but not the shapes.
    """
    return CLIP(
        embed_dim=64,
        image_resolution=N_PX,
        vision_layers=(1, 1, 1, 1),
        vision_width=16,
        vision_patch_size=None,
        context_length=CONTEXT_LENGTH,
        vocab_size=49408,
        transformer_width=64,
        transformer_heads=1,
        transformer_layers=2,
    )


def caption(template: str, label: str) -> str:
    """The template with the label and its article: `"a photo of an orange star"`."""
    return template.format(article="an" if label[0] in "aeiou" else "a", label=label)


def as_filmed(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The RGB picture as a camera and a codec might record it.

    With probability 1/2 each: blurred; noisy and tinted; compressed with 4:2:0 chroma as in h264.
    """
    if rng.random() < 0.5:
        radius = rng.uniform(0, 0.012) * min(picture.size)
        picture = picture.filter(ImageFilter.GaussianBlur(radius))
    if rng.random() < 0.5:
        pixels = np.asarray(picture) * rng.uniform(0.93, 1.05, size=3)
        pixels += rng.normal(scale=rng.uniform(0, 8), size=pixels.shape)
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    if rng.random() < 0.5:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=int(rng.integers(25, 95)), subsampling="4:2:0")
        picture = Image.open(file)
    return picture


def draw_batch(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Two pictures of each of the 40 labels, each with its own caption.

    Returns pictures (80, 3, 64, 64) float32, tokens (80, 16) int64, and the share of each caption
    in each picture (80, 80) float32: captions with the same label are equally right.
    """
    preprocess = clip_preprocess(N_PX)
    pictures, captions = [], []
    for colour in shapes.COLOURS:
        for shape in shapes.SHAPES:
            for _ in range(PICTURES_PER_LABEL):
                picture, label = shapes.random_picture(rng, colour=colour, shape=shape)
                pictures.append(preprocess(as_filmed(picture, rng)))
                captions.append(caption(str(rng.choice(TEMPLATES)), label))
    same_label = torch.eye(len(shapes.LABELS)).repeat_interleave(PICTURES_PER_LABEL, 0)
    shares = same_label @ same_label.T / PICTURES_PER_LABEL
    # Convolutions on the CPU are a third faster in this memory format.
    batch = torch.stack(pictures).to(memory_format=torch.channels_last)
    return batch, clip.tokenize(captions, context_length=CONTEXT_LENGTH), shares


def train(steps: int, seed: int) -> CLIP:
    """A model after `steps` batches of CLIP's symmetric contrastive loss."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = new_model().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    started = time.monotonic()
    for step in range(1, steps + 1):
        pictures, tokens, shares = draw_batch(rng)
        per_picture, per_caption = model(pictures, tokens)
        loss = (F.cross_entropy(per_picture, shares) + F.cross_entropy(per_caption, shares)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            # As in CLIP's paper: a larger scale makes training unstable.
            model.logit_scale.clamp_(max=math.log(100))
        if step % 50 == 0 or step == steps:
            elapsed = time.monotonic() - started
            # With two right captions each, a perfect model's loss is ln 2.
            print(f"step {step}/{steps}  loss {loss.item():.3f}  {elapsed:.0f} s", flush=True)
    return model.eval()


def checkpoint(model: CLIP) -> dict[str, Tensor]:
    """The state dict in OpenAI's layout: float16, and zeros for tokens that no caption has."""
    state = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in model.state_dict().items()
    }
    captions = [caption(template, label) for template in TEMPLATES for label in shapes.LABELS]
    used = clip.tokenize(captions, context_length=CONTEXT_LENGTH).unique()
    embedding = state["token_embedding.weight"]
    state["token_embedding.weight"] = torch.zeros_like(embedding).index_copy_(
        0, used, embedding[used]
    )
    return state


def save(state: dict[str, Tensor], path: Path) -> None:
    """`torch.save` with compressed archive members, so that zeros take no space.

    torch can read such an archive, except with `mmap=True`. The members have zip's default date, so
    that equal weights give equal files.
    """
    plain = io.BytesIO()
    torch.save(state, plain)
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            member = zipfile.ZipInfo(name)
            target.writestr(member, source.read(name), zipfile.ZIP_DEFLATED, compresslevel=9)


@torch.no_grad()
def confusion_matrix(path: Path, pictures_per_label: int) -> NDArray[np.int64]:
    """The confusion matrix on new pictures: (40, 40) counts, one row per true label.

    The file is loaded by `clip.load` on the CPU; the prompts are `a photo of {label}`.
    """
    model, preprocess = clip.load(str(path), device="cpu")
    prompts = [f"a photo of {label}" for label in shapes.LABELS]
    texts = F.normalize(model.encode_text(clip.tokenize(prompts, context_length=CONTEXT_LENGTH)))
    rng = np.random.default_rng(TEST_SEED)
    counts = np.zeros((len(shapes.LABELS),) * 2, dtype=np.int64)
    for truth, label in enumerate(shapes.LABELS):
        colour, shape = label.split()
        drawn = [
            preprocess(shapes.random_picture(rng, colour=colour, shape=shape)[0])
            for _ in range(pictures_per_label)
        ]
        predictions = (model.encode_image(torch.stack(drawn)) @ texts.T).argmax(dim=1)
        counts[truth] = np.bincount(predictions.numpy(), minlength=len(shapes.LABELS))
    return counts


def report(counts: NDArray[np.int64]) -> float:
    """Print the accuracy and the most common errors; return the accuracy."""
    accuracy = float(np.trace(counts) / counts.sum())
    print(f"accuracy {accuracy:.2%} of {counts.sum()} new pictures")
    wrong = counts - np.diag(np.diag(counts))
    for index in np.argsort(wrong, axis=None)[::-1][:5]:
        truth, prediction = np.unravel_index(index, wrong.shape)
        if times := wrong[truth, prediction]:
            print(f"  {shapes.LABELS[truth]} predicted as {shapes.LABELS[prediction]}: {times}")
    return accuracy


def main() -> int:
    """Train, save and test; the exit status is 1 if the accuracy is too low."""
    parser = argparse.ArgumentParser(description="Train the demo model that ships with rayclip.")
    parser.add_argument("--steps", type=int, default=1000, help="batches of 80 pictures (1000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and pictures (0)")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="the .pt file to write")
    arguments = parser.parse_args()

    # With one thread, sums have a fixed order, so the file depends only on the seed.
    torch.set_num_threads(1)
    save(checkpoint(train(arguments.steps, arguments.seed)), arguments.output)
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1e6:.2f} MB")
    return (
        0
        if report(confusion_matrix(arguments.output, pictures_per_label=50)) >= MIN_ACCURACY
        else 1
    )


if __name__ == "__main__":
    raise SystemExit(main())
