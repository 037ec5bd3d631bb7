"""The obvious pipeline on Daft: ``read_video_frames``, then a batch method over frames.

    python daft_frames.py FILES FPS WEIGHTS OUTPUT VIDEO...

FILES is the number of videos in a query; 0 puts all of them into one. ``read_video_frames`` has one
size for the frames of all videos; this takes the first video's shape.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import av
import clip
import daft
import numpy as np
import torch
from PIL import Image

BATCH_SIZE = 64
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@cache
def load(weights: str) -> Any:
    return clip.load(weights, DEVICE)


@daft.cls(gpus=1 if DEVICE == "cuda" else 0, max_concurrency=1)
class Encode:
    def __init__(self, weights: str) -> None:
        self.model, self.preprocess = load(weights)

    @daft.method.batch(return_dtype=daft.DataType.python(), batch_size=BATCH_SIZE)
    def encode(self, frames: daft.Series) -> list[Any]:
        pixels = [self.preprocess(Image.fromarray(np.asarray(rgb))) for rgb in frames.to_pylist()]
        with torch.inference_mode():
            features = self.model.encode_image(torch.stack(pixels).to(DEVICE))
        return list(features.float().cpu().numpy())


def main(files: str, fps: str, weights: str, output: str, *videos: str) -> None:
    n_px = clip.load(weights, "cpu")[0].visual.input_resolution
    with av.open(videos[0]) as container:
        first = container.streams.video[0]
        scale = n_px / min(first.width, first.height)
        width, height = int(first.width * scale), int(first.height * scale)
    encoder = Encode(weights)
    per_query = int(files) or len(videos)
    found = defaultdict(list)
    for start in range(0, len(videos), per_query):
        frames = daft.read_video_frames(
            list(videos[start : start + per_query]),
            image_height=height,
            image_width=width,
            sample_interval_seconds=1 / int(fps),
        )
        columns = "path", "frame_index", encoder.encode(frames["data"]).alias("clip")
        for row in frames.select(*columns).iter_rows():
            found[row["path"]].append((row["frame_index"], row["clip"]))
    for path, features in found.items():
        features.sort(key=lambda pair: pair[0])
        np.save(Path(output, Path(path).stem), np.stack([feature for _, feature in features]))


if __name__ == "__main__":
    main(*sys.argv[1:])
