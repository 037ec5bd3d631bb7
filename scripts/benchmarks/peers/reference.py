"""What video_features does: re-encode, then one frame after the other, decoded and encoded in turn.

python reference.py RATE WEIGHTS OUTPUT VIDEO...
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

sys.path += map(str, Path(__file__).parents[1:3])  # the benchmarks, and what all scripts share

from bench_decode import parse_rate
from bench_ways import reference

from rayclip.model.checkpoint import openai_clip, without_warnings
from rayclip.model.openai import MEAN, STD


def main(rate: str, weights: str, output: str, *videos: str) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with without_warnings():
        model, _ = openai_clip().load(weights, device=device)
    mean, std = (torch.tensor(three, device=device).view(3, 1, 1) for three in (MEAN, STD))
    frames = 0
    with torch.inference_mode():
        for video in videos:
            features = []
            for square in reference(Path(video), parse_rate(rate)):
                pixels = torch.tensor(square, device=device).permute(2, 0, 1).float()
                pixels = pixels.div_(255).sub_(mean).div_(std)
                features.append(model.encode_image(pixels[None]).float().cpu().numpy())
            frames += len(features)
            np.save(Path(output, Path(video).stem), np.concatenate(features))
    print(f"videos: {len(videos)} done; {frames} frames in all", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
