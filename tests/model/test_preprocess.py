"""A model's squares equal those of Pillow, and of the models' own preprocessing, byte for byte."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from rayclip.model import exact_resize
from rayclip.model.preprocess import Placement, Resizing, placement, resize

N_PX = 32
Picture = NDArray[np.uint8]

needs_library = pytest.mark.skipif(
    not exact_resize.is_available(), reason="the C library is not built: see CONTRIBUTING.md"
)


both_ways = pytest.mark.usefixtures("way")


@pytest.fixture(params=[pytest.param("library", marks=needs_library), "pillow"])
def way(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resize with the C library, then with Pillow alone."""
    if request.param == "pillow":
        monkeypatch.setattr(exact_resize, "_resize", None)


def picture(width: int, height: int) -> Picture:
    rng = np.random.default_rng(width * 1000 + height)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_pillow(rgb: Picture, resizing: Resizing) -> Picture:
    """Resize with Pillow's own two calls; then crop, or fill around it."""
    n_px, place = resizing.n_px, placement(rgb.shape[1], rgb.shape[0], resizing)
    resample = Image.Resampling[resizing.interpolation.upper()]
    rows = Image.fromarray(np.ascontiguousarray(rgb)).resize((place.width, len(rgb)), resample)
    square = Image.new("RGB", (n_px, n_px), resizing.fill)
    square.paste(rows.resize((place.width, place.height), resample), (-place.left, -place.top))
    return np.asarray(square)


def random_cases() -> Iterator[tuple[int, int, Resizing]]:
    """Landscape, portrait, odd and tiny pictures, made larger and smaller."""
    rng = random.Random(0)
    for number in range(120):
        width, height = (rng.randint(1, rng.choice([4, 40, 400])) for _ in range(2))
        mode: Any = ("shorter", "squash", "longest")[number % 3]
        interpolation: Any = rng.choice(["bicubic", "bilinear"])
        fill = (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))
        yield width, height, Resizing(rng.randint(5, 100), mode, interpolation, fill)


@both_ways
def test_pictures_of_any_size_become_pillows_squares() -> None:
    for width, height, resizing in random_cases():
        rgb = picture(width, height)
        np.testing.assert_array_equal(
            resize(rgb, resizing), by_pillow(rgb, resizing), f"{width}x{height} {resizing}"
        )


@both_ways
@pytest.mark.parametrize(
    ("width", "height"),
    [(64, 48), (48, 64), (63, 47), (47, 63), (50, 50), (31, 62), (1, 1), (7, 5), (300, 9)],
)
def test_a_picture_is_resized_and_cropped_as_torchvision_does_it(width: int, height: int) -> None:
    rgb = picture(width, height)
    theirs = Compose([Resize(N_PX, InterpolationMode.BICUBIC), CenterCrop(N_PX)])
    np.testing.assert_array_equal(resize(rgb, Resizing(N_PX)), theirs(Image.fromarray(rgb)))


@both_ways
@pytest.mark.parametrize("n_px", [64, 224, 225, 288, 336, 448])
def test_every_model_gets_a_square_of_its_own_size(n_px: int) -> None:
    rgb = picture(173, 397)
    np.testing.assert_array_equal(resize(rgb, Resizing(n_px)), by_pillow(rgb, Resizing(n_px)))


@both_ways
@pytest.mark.parametrize("level", [0, 1, 254, 255])
def test_hard_edges_are_clipped_as_pillow_does_it(level: int) -> None:
    rgb = np.where(picture(90, 70) > 127, np.uint8(255), np.uint8(level))
    for n_px in (N_PX, 200):
        np.testing.assert_array_equal(resize(rgb, Resizing(n_px)), by_pillow(rgb, Resizing(n_px)))


@both_ways
def test_pictures_may_have_any_strides() -> None:
    whole = picture(150, 120)
    part = whole[7:100, 11:140]
    for rgb in (
        part,
        part[::-1],
        part[:, ::-1],
        part.swapaxes(0, 1),
        part.swapaxes(0, 1)[::-1, ::-1],
        part[::2, ::3],
        part[:, :, ::-1],
        np.broadcast_to(part[:1, :1], part.shape),
        part[:, :1],
        part[:1],
    ):
        for resizing in (Resizing(N_PX), Resizing(N_PX, "longest"), Resizing(130)):
            np.testing.assert_array_equal(resize(rgb, resizing), by_pillow(rgb, resizing))


@both_ways
def test_an_image_of_the_right_size_is_unchanged() -> None:
    rgb = picture(N_PX, N_PX)
    np.testing.assert_array_equal(resize(rgb, Resizing(N_PX)), rgb)


@both_ways
def test_an_image_that_only_needs_a_crop_is_unchanged() -> None:
    rgb = picture(N_PX + 7, N_PX)
    np.testing.assert_array_equal(resize(rgb, Resizing(N_PX)), rgb[:, 4 : 4 + N_PX])


@both_ways
def test_an_image_that_only_needs_filling_is_unchanged() -> None:
    rgb = picture(N_PX, 10)
    square = resize(rgb, Resizing(N_PX, "longest", fill=(1, 2, 3)))
    np.testing.assert_array_equal(square[11:21], rgb)
    assert (square[:11] == (1, 2, 3)).all()
    assert (square[21:] == (1, 2, 3)).all()


@pytest.mark.parametrize(
    ("width", "height", "place"),
    [
        (320, 240, Placement(298, 224, 37, 0)),
        (240, 320, Placement(224, 298, 0, 37)),
        (224, 224, Placement(224, 224, 0, 0)),
        (225, 224, Placement(225, 224, 0, 0)),  # half a pixel to the left: to even, 0
        (227, 224, Placement(227, 224, 2, 0)),  # one and a half: to even, 2
    ],
)
def test_the_square_is_in_the_centre_of_the_resized_image(
    width: int, height: int, place: Placement
) -> None:
    assert placement(width, height, Resizing(224)) == place


@pytest.mark.parametrize(
    ("width", "height", "place"),
    [
        (320, 240, Placement(224, 168, 0, -28)),
        (240, 321, Placement(167, 224, -28, 0)),  # the odd pixel is filled on the right
        (1, 1000, Placement(1, 224, -111, 0)),
    ],
)
def test_with_longest_the_whole_picture_is_in_the_middle_of_the_square(
    width: int, height: int, place: Placement
) -> None:
    assert placement(width, height, Resizing(224, "longest")) == place


GUARDED = """
import ctypes, mmap
import numpy as np
from rayclip.model.preprocess import Resizing, resize

page, pages = mmap.PAGESIZE, 8
memory = mmap.mmap(-1, page * (pages + 2))
whole = np.frombuffer(memory, np.uint8)
protect = ctypes.CDLL(None, use_errno=True).mprotect
for guard in (0, page * (pages + 1)):
    assert protect(ctypes.c_void_p(whole.ctypes.data + guard), ctypes.c_size_t(page), 0) == 0
free = whole[page:-page]
for width, height in [(1, 1), (1, 9), (9, 1), (2, 2), (3, 5), (33, 40), (40, 33), (64, 80)]:
    for stride in (3 * width, 3 * width + 1, 3 * width + 5):
        size = stride * (height - 1) + 3 * width
        for start in (0, free.size - size):  # at the first and at the last byte
            rgb = np.lib.stride_tricks.as_strided(
                free[start:], (height, width, 3), (stride, 3, 1)
            )
            for view in (rgb, rgb[::-1, ::-1], rgb.swapaxes(0, 1), rgb.swapaxes(0, 1)[::-1, ::-1]):
                for n_px in (8, 30, 70):
                    resize(view, Resizing(n_px))
"""


@needs_library
def test_nothing_outside_a_picture_is_read() -> None:
    """Memory before and after it cannot be read: the process would die."""
    subprocess.run([sys.executable, "-c", GUARDED], check=True)


def test_the_library_can_be_turned_off() -> None:
    code = "from rayclip.model import exact_resize; print(exact_resize.is_available())"
    environment = {"RAYCLIP_NO_EXTENSION": "1", "PYTHONPATH": ":".join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "False\n"
