"""A generated collection of videos in which each shape is shown at known seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapes
from PIL import Image

SCENE_S = 2.0
FPS = 10
SIZE = (160, 120)


class Scene(NamedTuple):
    """When a video shows a shape, in seconds from its start."""

    video: str
    label: str
    start_s: float
    end_s: float


def write_collection(folder: Path, videos: int, scenes: int = 8, seed: int = 0) -> list[Scene]:
    """Write videos of this many scenes each, in which neighbours differ, and return all scenes.

    Each of the 40 shapes is shown about equally often.
    """
    rng = np.random.default_rng(seed)
    pairs = [(colour, shape) for colour in shapes.COLOURS for shape in shapes.SHAPES]
    drawn: list[tuple[str, str]] = []
    while len(drawn) < videos * scenes:
        shuffled = [pairs[number] for number in rng.permutation(len(pairs))]
        if not drawn or shuffled[0] != drawn[-1]:
            drawn += shuffled
    found = []
    for number in range(videos):
        part = drawn[number * scenes : (number + 1) * scenes]
        path = folder / f"drawn-{number:02}.mp4"
        _write(path, part, seed * videos + number)
        found += [
            Scene(path.stem, shapes.label(*pair), place * SCENE_S, (place + 1) * SCENE_S)
            for place, pair in enumerate(part)
        ]
    return found


def _write(path: Path, pairs: Sequence[tuple[str, str]], seed: int) -> None:
    width, height = SIZE
    shapes.write_video(
        path,
        pairs,
        width=width,
        height=height,
        fps=FPS,
        seconds_per_scene=SCENE_S,
        seed=seed,
    )


def picture_of(text: str, seed: int) -> Image.Image:
    """A fresh picture of a label."""
    colour, shape = text.split()
    return shapes.random_picture(np.random.default_rng(seed), colour=colour, shape=shape)[0]


def is_right(answer: dict[str, Any], label: str, scenes: Sequence[Scene], step_s: float) -> bool:
    """Whether an answer of ``rayclip search --json`` is a scene of this label.

    Args:
        answer: the first moment.
        label: that was searched for.
        scenes: of the collection.
        step_s: seconds between frames: by so much may its bounds be wrong.
    """
    name = Path(answer["video"]).stem
    return any(
        scene.video == name
        and scene.label == label
        and abs(scene.start_s - answer["start_s"]) <= step_s + 1e-6
        and abs(scene.end_s - answer["end_s"]) <= step_s + 1e-6
        for scene in scenes
    )
