"""Search saved features for the frames that match a text, and draw their similarity over time."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import rayclip

MAX_PANELS = 8  # the best-matching videos


class Curve(NamedTuple):
    """The similarity of one video's frames and a text.

    Attributes:
        video: the name of the video.
        seconds: float64 ``[T]``, time from the start of the video.
        similarity: float ``[T]``, cosine of each frame and the text.
    """

    video: str
    seconds: NDArray[np.float64]
    similarity: NDArray[np.floating]


def search(output_path: str, text: str, model_name: str) -> list[Curve]:
    """The curves of all videos in an ``output_path``, best match first."""
    query = rayclip.load_clip(model_name).encode_text([text])[0]
    query /= np.linalg.norm(query)
    curves = []
    for video, clip, timestamps_ms, _ in rayclip.load_features(output_path, model_name=model_name):
        similarity = clip @ query / np.linalg.norm(clip, axis=1)
        curves.append(Curve(video, timestamps_ms / 1000, similarity))
    return sorted(curves, key=lambda curve: curve.similarity.max(), reverse=True)


def best_frames(curves: Sequence[Curve], number: int) -> list[tuple[float, str, float]]:
    """``(similarity, video, seconds)`` of the best-matching frames, best first."""
    frames = [
        (float(similarity), curve.video, float(seconds))
        for curve in curves
        for similarity, seconds in zip(curve.similarity, curve.seconds, strict=True)
    ]
    return sorted(frames, reverse=True)[:number]


def draw(curves: Sequence[Curve], text: str, picture: Path) -> None:
    """Draw similarity over time, one panel per video.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    shown = curves[:MAX_PANELS]
    figure = Figure(figsize=(8, 1 + 1.5 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), sharey=True, squeeze=False)[:, 0]
    for panel, curve in zip(panels, shown, strict=True):
        panel.plot(curve.seconds, curve.similarity, marker=".", linewidth=1)
        panel.set_title(curve.video, loc="left", fontsize="medium")
        panel.set_ylabel("cosine")
        panel.grid(alpha=0.3)
    panels[-1].set_xlabel("seconds")
    figure.suptitle(text)
    figure.savefig(picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output_path", help="output folder of a run")
    parser.add_argument("text", help='such as "a photo of a red circle"')
    parser.add_argument("--model-name", default="demo", help="model of that run; default: demo")
    parser.add_argument("--frames", type=int, default=10, help="how many to print; default: 10")
    parser.add_argument("--picture", type=Path, help="file for the plot, e.g. red_circle.png")
    arguments = parser.parse_args()
    try:
        curves = search(arguments.output_path, arguments.text, arguments.model_name)
    except rayclip.RayclipError as error:
        sys.exit(f"search.py: {error}")
    for similarity, video, seconds in best_frames(curves, arguments.frames):
        print(f"{similarity:6.3f}  {video}  {seconds:.1f} s")
    if arguments.picture is not None and curves:
        try:
            draw(curves, arguments.text, arguments.picture)
        except ImportError:
            sys.exit("search.py: a picture needs matplotlib: pip install 'rayclip[plot]'")
        print(f"Drew {arguments.picture}.")


if __name__ == "__main__":
    main()
