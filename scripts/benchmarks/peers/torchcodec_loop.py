"""torchcodec and a loop: the frame shown at each tick, resized by torchvision, in batches.

python torchcodec_loop.py FPS WEIGHTS OUTPUT VIDEO...
"""

from __future__ import annotations

import sys
from math import ceil
from pathlib import Path

import clip
import numpy as np
import torch
from torchcodec.decoders import VideoDecoder
from torchvision.transforms import v2

BATCH_SIZE = 64
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def main(fps: str, weights: str, output: str, *videos: str) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, _ = clip.load(weights, device)
    n_px = model.visual.input_resolution
    resize = v2.Compose(
        [
            v2.Resize(n_px, v2.InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(n_px),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    for video in videos:
        decoder = VideoDecoder(video, num_ffmpeg_threads=0)  # ffmpeg's choice: all cores
        start, end = decoder.metadata.begin_stream_seconds, decoder.metadata.end_stream_seconds
        ticks = [tick / int(fps) for tick in range(ceil(start * int(fps)), ceil(end * int(fps)))]
        features = []
        for first in range(0, len(ticks), BATCH_SIZE):
            frames = decoder.get_frames_played_at(ticks[first : first + BATCH_SIZE]).data
            pixels = torch.cat([resize(some) for some in frames.split(1)])
            with torch.inference_mode():
                features.append(model.encode_image(pixels.to(device)).float().cpu())
        np.save(Path(output, Path(video).stem), torch.cat(features).numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
