"""Generated pictures and videos of coloured shapes.

They replace photographs if the meaning of features is checked, since their contents are known.
Everything here is a pure function of its arguments and of the given `rng`.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from os import PathLike, fspath

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Rgb = tuple[int, int, int]

COLOURS: dict[str, Rgb] = {
    "red": (215, 25, 30),
    "green": (30, 150, 50),
    "blue": (30, 70, 220),
    "yellow": (250, 225, 30),
    "purple": (140, 40, 175),
    "orange": (250, 130, 15),
    "white": (250, 250, 250),
    "black": (10, 10, 10),
}
"""Name -> 8-bit RGB."""


def _polygon(
    angles: NDArray[np.float64], radii: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    """Corners at `angles` (radians, clockwise from the top), (N, 2) float64 x, y, y down."""
    return np.stack([radii * np.sin(angles), -radii * np.cos(angles)], axis=1)


def _outlines() -> dict[str, NDArray[np.float64]]:
    """Shape -> corners (N, 2) float64, upright, on or inside the unit circle."""
    turn = 2 * np.pi
    half_width = 0.3
    reach = np.sqrt(1 - half_width**2)
    arm = np.array([[-half_width, -reach], [half_width, -reach], [half_width, -half_width]])
    quarter = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return {
        "circle": _polygon(np.arange(90) * turn / 90, 1.0),
        "square": _polygon((np.arange(4) + 0.5) * turn / 4, 1.0),
        "triangle": _polygon(np.arange(3) * turn / 3, 1.0),
        "star": _polygon(np.arange(10) * turn / 10, np.tile([1.0, 0.4], 5)),
        "cross": np.concatenate([arm @ np.linalg.matrix_power(quarter, k) for k in range(4)]),
    }


_OUTLINES = _outlines()

SHAPES: tuple[str, ...] = tuple(_OUTLINES)

# Pixels of the drawing per pixel of the picture, in each direction, for smooth edges.
_OVERSAMPLING = 4

# Minimum Euclidean distance in 8-bit RGB at which a shape is visible on its background.
_MIN_DISTANCE = 140.0


def label(colour: str, shape: str) -> str:
    """The label of one coloured shape: `"red circle"`."""
    return f"{colour} {shape}"


LABELS: tuple[str, ...] = tuple(label(colour, shape) for colour in COLOURS for shape in SHAPES)
"""All 40 labels, colour by colour."""


def draw(
    colour: str,
    shape: str,
    *,
    size: tuple[int, int],
    centre: tuple[float, float],
    radius: float,
    angle: float = 0.0,
    background: Rgb = (255, 255, 255),
) -> Image.Image:
    """One shape on a plain background: an RGB picture of `size` (width, height) pixels.

    `centre` (x, y, from the top left) and `radius` (of the circle around the shape) are in pixels
    and need not be whole; `angle` is in degrees, clockwise. Edges are antialiased.
    """
    turned = np.radians(angle)
    rotation = np.array([[np.cos(turned), np.sin(turned)], [-np.sin(turned), np.cos(turned)]])
    corners = (_OUTLINES[shape] @ rotation * radius + centre) * _OVERSAMPLING
    mask = Image.new("L", (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING))
    ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in corners], fill=255)
    picture = Image.new("RGB", size, background)
    picture.paste(COLOURS[colour], mask=mask.reduce(_OVERSAMPLING))
    return picture


def random_background(rng: np.random.Generator, colour: str) -> Rgb:
    """A plain 8-bit RGB on which a shape of `colour` is visible; in half of the cases a grey."""
    while True:
        grey = rng.random() < 0.5
        background = np.repeat(rng.integers(256), 3) if grey else rng.integers(256, size=3)
        if np.linalg.norm(background - np.array(COLOURS[colour])) >= _MIN_DISTANCE:
            red, green, blue = background.tolist()
            return red, green, blue


def _random_centre(
    rng: np.random.Generator, size: tuple[int, int], radius: float
) -> tuple[float, float]:
    """A position (x, y) in pixels at which a shape stays inside CLIP's centre crop."""
    slack = min(size) / 2 - radius
    return size[0] / 2 + rng.uniform(-slack, slack), size[1] / 2 + rng.uniform(-slack, slack)


def random_picture(
    rng: np.random.Generator, *, colour: str | None = None, shape: str | None = None
) -> tuple[Image.Image, str]:
    """An RGB picture of one shape, and its label.

    The shorter side is 64 to 180 pixels, the picture square, 4:3, 16:9 or 3:4. Background,
    position, radius and a rotation of up to 15 degrees are random; so are `colour` and `shape` if
    not given.
    The shape lies inside the centred square, so that CLIP's centre crop never cuts it.
    """
    colour = colour or str(rng.choice(list(COLOURS)))
    shape = shape or str(rng.choice(SHAPES))
    short = int(rng.integers(64, 181))
    long = round(short * rng.choice([1, 4 / 3, 16 / 9]))
    size = (short, long) if rng.random() < 0.25 else (long, short)
    radius = short * rng.uniform(0.22, 0.45)
    picture = draw(
        colour,
        shape,
        size=size,
        centre=_random_centre(rng, size, radius),
        radius=radius,
        angle=rng.uniform(-15, 15),
        background=random_background(rng, colour),
    )
    return picture, label(colour, shape)


def _scene(
    rng: np.random.Generator, colour: str, shape: str, size: tuple[int, int], frames: int
) -> Iterator[Image.Image]:
    """`frames` RGB pictures of one shape that moves and turns slightly on one background."""
    radius = min(size) * rng.uniform(0.25, 0.4)
    background = random_background(rng, colour)
    start, end = _random_centre(rng, size, radius), _random_centre(rng, size, radius)
    places = np.linspace(start, end, frames)
    angles = np.linspace(rng.uniform(-15, 15), rng.uniform(-15, 15), frames)
    for (x, y), angle in zip(places.tolist(), angles.tolist(), strict=True):
        yield draw(
            colour,
            shape,
            size=size,
            centre=(x, y),
            radius=radius,
            angle=angle,
            background=background,
        )


def write_video(
    path: str | PathLike[str],
    scenes: Sequence[tuple[str, str]],
    *,
    width: int = 320,
    height: int = 240,
    fps: int | Fraction = 25,
    seconds_per_scene: float = 2.0,
    seed: int = 0,
) -> list[str]:
    """Write an h264 (yuv420p) mp4 in which each (colour, shape) of `scenes` moves.

    `width` and `height` are even numbers of pixels (yuv420p halves them). A scene is the nearest
    whole number of frames, at least one. `seed` decides backgrounds, sizes and paths. Returns the
    label of every frame, in presentation order.
    """
    if width % 2 or height % 2:
        raise ValueError(f"width and height must be even, not {width} x {height}")
    rng = np.random.default_rng(seed)
    frames_per_scene = max(1, round(seconds_per_scene * fps))
    labels: list[str] = []
    with av.open(fspath(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for colour, shape in scenes:
            for picture in _scene(rng, colour, shape, (width, height), frames_per_scene):
                frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
                frame.pts, frame.time_base = len(labels), 1 / Fraction(fps)
                container.mux(stream.encode(frame))
                labels.append(label(colour, shape))
        container.mux(stream.encode(None))
    return labels
