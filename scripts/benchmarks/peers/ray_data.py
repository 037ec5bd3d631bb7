"""The obvious pipeline on Ray Data: ``read_videos``, then ``map_batches`` over frames.

    python ray_data.py FPS WEIGHTS OUTPUT VIDEO...

``read_videos`` has one size for the frames of all videos; this takes the first video's shape.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import clip
import numpy as np
import ray.data
import torch
from decord import VideoReader
from PIL import Image

BATCH_SIZE = 64


class Encode:
    def __init__(self, weights: str) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model, self.preprocess = clip.load(weights, self.device)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        pixels = torch.stack([self.preprocess(Image.fromarray(rgb)) for rgb in batch.pop("frame")])
        with torch.inference_mode():
            features = self.model.encode_image(pixels.to(self.device))
        return {**batch, "clip": features.float().cpu().numpy()}


def main(fps: str, weights: str, output: str, *videos: str) -> None:
    model, _ = clip.load(weights, "cpu")
    n_px = model.visual.input_resolution
    height, width, _ = VideoReader(videos[0])[0].shape
    scale = n_px / min(height, width)
    ray.init(include_dashboard=False)
    frames = ray.data.read_videos(
        list(videos),
        fps=int(fps),
        resize=(int(height * scale), int(width * scale)),
        include_paths=True,
    )
    encoded = frames.map_batches(
        Encode,
        fn_constructor_args=(weights,),
        batch_size=BATCH_SIZE,
        num_gpus=1 if torch.cuda.is_available() else 0,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=None),
    )
    found = defaultdict(list)
    for row in encoded.iter_rows():
        found[row["path"]].append((row["frame_index"], row["clip"]))
    for path, features in found.items():
        features.sort(key=lambda pair: pair[0])
        np.save(Path(output, Path(path).stem), np.stack([feature for _, feature in features]))


if __name__ == "__main__":
    main(*sys.argv[1:])
