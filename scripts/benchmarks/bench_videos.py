"""Generate videos to measure on: one moving scene, written by several encoders.

The scene replaces real footage: the camera pans over a textured landscape and zooms into it,
objects move through it, and sensor noise is added. It is the same in every run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Yuv = NDArray[np.uint8]
"""A yuv420p picture: uint8 ``[3 * height / 2, width]``, its planes below each other."""

SIZE = (1920, 1080)  # width, height
FPS = 30
SECONDS = 12.0
SEED = 0

MARGIN = 1.5  # size of the landscape relative to the picture
NEAREST = 0.55  # share of the landscape's width in the closest view
COARSEST = 6  # cells across the landscape's height; each octave has twice as many
OCTAVES = 8
COLOURFUL_OCTAVES = 3  # the others are grey
ROUGHNESS = 0.75  # strength of an octave relative to the previous one
CONTRAST = 45.0  # standard deviation in 8-bit levels
OBJECTS = 9
SENSOR_NOISE = 1.6  # standard deviation in 8-bit levels of luma
NOISE_MARGIN = 64  # the noise of a frame is cut from a larger field


@dataclass(frozen=True)
class Encoding:
    """How to write a video.

    Attributes:
        encoder: libav's name of the encoder.
        options: options of the encoder; chosen first for the work of decoders, then for speed.
    """

    encoder: str
    options: Mapping[str, str]


ENCODINGS = {
    "h264_gop250": Encoding("libx264", {"preset": "faster", "g": "250", "bf": "3"}),
    "h264_gop60": Encoding("libx264", {"preset": "faster", "g": "60", "bf": "3"}),
    "hevc": Encoding(
        "libx265", {"preset": "superfast", "crf": "24", "x265-params": "log-level=none"}
    ),
    "vp9": Encoding("libvpx-vp9", {"deadline": "good", "cpu-used": "8", "crf": "33", "b": "0"}),
    "av1": Encoding("libsvtav1", {"preset": "10", "crf": "34"}),
}
"""File stem -> encoding."""


def make_videos(
    folder: Path,
    size: tuple[int, int] = SIZE,
    seconds: float = SECONDS,
    stems: Iterable[str] = ENCODINGS,
) -> list[Path]:
    """Write the videos of :data:`ENCODINGS` that this libav supports to ``folder``, as mp4.

    Existing files are kept. The scene is drawn once for all others.

    Args:
        folder: created if missing.
        size: width and height in pixels, even.
        seconds: the length, at :data:`FPS`; what moves, moves as fast in a longer one.
        stems: keys of :data:`ENCODINGS`.
    """
    os.environ.setdefault("SVT_LOG", "1")  # only errors: SVT-AV1 is verbose
    folder.mkdir(parents=True, exist_ok=True)
    videos = {
        folder / f"{stem}.mp4": ENCODINGS[stem]
        for stem in stems
        if ENCODINGS[stem].encoder in av.codecs_available
    }
    missing = {path: encoding for path, encoding in videos.items() if not path.exists()}
    if missing:
        _write(missing, scene(size, round(seconds * FPS)), size)
    return list(videos)


def scene(size: tuple[int, int], frames: int) -> Iterator[Yuv]:
    """The pictures of the scene, ``size`` (width, height) pixels each.

    The camera is back at its start after :data:`SECONDS`, and everything moves on.
    """
    rng = np.random.default_rng(SEED)
    width, height = size
    landscape = _landscape(rng, (round(width * MARGIN), round(height * MARGIN)))
    objects = [_random_object(rng) for _ in range(OBJECTS)]
    noise_size = (height + NOISE_MARGIN, width + NOISE_MARGIN)
    noise = np.rint(rng.normal(0, SENSOR_NOISE, noise_size)).astype(np.int16)
    for progress in (np.arange(frames) / (SECONDS * FPS - 1)).tolist():
        view = _camera(landscape.size, progress)
        picture = landscape.resize(size, Image.Resampling.BILINEAR, box=view)
        for moving in objects:
            moving.draw(picture, progress)
        yuv = av.VideoFrame.from_image(picture).to_ndarray(format="yuv420p")
        top, left = rng.integers(NOISE_MARGIN, size=2)
        luma = yuv[:height] + noise[top : top + height, left : left + width]
        yuv[:height] = np.clip(luma, 0, 255)
        yield yuv


def _landscape(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A random texture with detail at every scale, fainter at finer scales, as in photographs."""
    width, height = size
    total = np.zeros((height, width, 3), np.float32)
    for octave in range(OCTAVES):
        rows = min(COARSEST * 2**octave, height)
        channels = 3 if octave < COLOURFUL_OCTAVES else 1
        cells = rng.integers(256, size=(rows, rows * width // height, channels), dtype=np.uint8)
        picture = Image.fromarray(np.broadcast_to(cells, (*cells.shape[:2], 3)).copy())
        detail = picture.resize(size, Image.Resampling.BICUBIC)
        total += ROUGHNESS**octave * np.asarray(detail, np.float32)
    levels = 128 + CONTRAST * (total - total.mean()) / total.std()
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))


def _camera(landscape: tuple[int, int], progress: float) -> tuple[float, float, float, float]:
    """The part of the landscape (left, top, right, bottom) that is in view."""
    turn = 2 * np.pi * progress
    zoom = NEAREST + (1 - NEAREST) * (0.45 + 0.45 * np.cos(turn))
    width, height = zoom * landscape[0], zoom * landscape[1]
    left = (landscape[0] - width) * (0.5 + 0.5 * np.sin(turn))
    top = (landscape[1] - height) * (0.5 + 0.5 * np.cos(2 * turn))
    return left, top, left + width, top + height


@dataclass(frozen=True)
class _Object:
    """A disc or square that moves through the picture.

    Attributes:
        colour: 8-bit RGB.
        is_round: whether it is a disc; otherwise it is a square.
        radius: in picture heights.
        start: its first position (x, y), in picture sizes.
        laps: how often it crosses the picture (x, y); negative to the left or upwards.
    """

    colour: tuple[int, ...]
    is_round: bool
    radius: float
    start: tuple[float, float]
    laps: tuple[float, float]

    def draw(self, picture: Image.Image, progress: float) -> None:
        reach = self.radius * picture.height
        x, y = (
            (start + laps * progress) % 1 * (length + 2 * reach) - reach
            for start, laps, length in zip(self.start, self.laps, picture.size, strict=True)
        )
        pen = ImageDraw.Draw(picture)
        outline = pen.ellipse if self.is_round else pen.rectangle
        outline((x - reach, y - reach, x + reach, y + reach), fill=self.colour)


def _random_object(rng: np.random.Generator) -> _Object:
    x, y = rng.random(2).tolist()
    laps_x, laps_y = rng.uniform(-3, 3, 2).tolist()
    return _Object(
        colour=tuple(rng.integers(256, size=3).tolist()),
        is_round=bool(rng.random() < 0.5),
        radius=rng.uniform(0.03, 0.12),
        start=(x, y),
        laps=(laps_x, laps_y),
    )


def _write(videos: Mapping[Path, Encoding], pictures: Iterable[Yuv], size: tuple[int, int]) -> None:
    """Encode the pictures into every video; a file takes its name when all of them are whole."""
    unfinished = {path: path.with_suffix(".part") for path in videos}
    with ExitStack() as stack:
        outputs = []
        for path, encoding in videos.items():
            output = stack.enter_context(av.open(str(unfinished[path]), "w", format="mp4"))
            outputs.append((output, _add_stream(output, encoding, size)))
        for number, picture in enumerate(pictures):
            for output, stream in outputs:
                frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                output.mux(stream.encode(frame))
        for output, stream in outputs:
            output.mux(stream.encode())
    for path, file in unfinished.items():
        file.replace(path)


def _add_stream(output: OutputContainer, encoding: Encoding, size: tuple[int, int]) -> VideoStream:
    stream = output.add_stream(encoding.encoder, FPS, options=dict(encoding.options))
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    return stream
