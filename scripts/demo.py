"""Draw a short video of moving shapes, extract its CLIP features, and show that they mean it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import shapes
from numpy.typing import NDArray

import rayclip

OUTPUT = Path("demo_output")
VIDEO = OUTPUT / "shapes.mp4"
SCENES = [
    ("red", "circle"),
    ("blue", "square"),
    ("yellow", "star"),
    ("green", "triangle"),
    ("white", "cross"),
]
EXTRACTION_FPS = 5
ENOUGH_RIGHT = 0.95


def main() -> None:
    OUTPUT.mkdir(exist_ok=True)
    drawn = shapes.write_video(VIDEO, SCENES)
    print(f"Drew {VIDEO}: {len(drawn)} frames, {', '.join(dict.fromkeys(drawn))}.\n")
    command = f"rayclip extract {VIDEO} --model-name demo --extraction-fps {EXTRACTION_FPS}"
    command += f" --on-extraction save_numpy --output-path {OUTPUT} --overwrite"
    print(f"$ {command}", flush=True)
    subprocess.run([sys.executable, "-m", *command.split()], check=True)

    folder = OUTPUT / "clip" / "demo"
    features, timestamps_ms, fps = (
        np.load(folder / f"{VIDEO.stem}_{name}.npy") for name in ("clip", "timestamps_ms", "fps")
    )
    print(
        f"\nclip {features.shape} {features.dtype}, timestamps_ms {timestamps_ms.shape}, fps {fps}"
    )
    truth = [drawn[round(time * fps / 1000)] for time in timestamps_ms]
    seen, similarity = nearest_labels(features)
    print("\n    time  drawn            nearest of 40 texts  cosine")
    for time, is_drawn, is_seen, cosine in zip(timestamps_ms, truth, seen, similarity, strict=True):
        if time % 400 == 0:
            print(f"{time / 1000:6.1f} s  {is_drawn:15}  {is_seen:19}  {cosine:.3f}")
    right = float(np.mean([a == b for a, b in zip(truth, seen, strict=True)]))
    print(
        f"\nThe text nearest to a frame's feature is what was drawn in {right:.0%} of the frames."
    )
    if right < ENOUGH_RIGHT:
        sys.exit(f"expected at least {ENOUGH_RIGHT:.0%}")


def nearest_labels(features: NDArray[np.float32]) -> tuple[list[str], NDArray[np.float32]]:
    """For features ``[T, D]`` the nearest of all labels, and its cosine ``[T]``."""
    texts = rayclip.load_clip("demo", device="cpu").encode_text(
        [f"a photo of a {label}" for label in shapes.LABELS]
    )
    cosine = unit(features) @ unit(texts).T
    return [shapes.LABELS[i] for i in cosine.argmax(axis=1)], cosine.max(axis=1)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / lengths, np.float32)


if __name__ == "__main__":
    main()
