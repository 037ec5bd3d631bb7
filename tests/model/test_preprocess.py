"""Resizing and cropping equal OpenAI's, byte for byte."""

import random

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from rayclip.model.preprocess import ClipBox, clip_box, resize_crop

N_PX = 32


def random_sizes() -> list[tuple[int, int]]:
    rng = random.Random(0)
    return [(rng.randint(8, 200), rng.randint(8, 200)) for _ in range(50)]


SIZES = [
    *random_sizes(),
    (64, 48),
    (48, 64),
    (63, 47),
    (47, 63),
    (50, 50),
    (51, 51),
    (N_PX, N_PX),  # right already
    (N_PX, N_PX + 7),
    (N_PX + 7, N_PX),
    (7, 5),  # smaller than the model's square
    (1, 1),
    (300, 9),
]


def picture(width: int, height: int) -> np.ndarray:
    rng = np.random.default_rng(width * 1000 + height)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_picture_is_resized_and_cropped_as_torchvision_does_it(width: int, height: int) -> None:
    rgb = picture(width, height)
    theirs = Compose([Resize(N_PX, InterpolationMode.BICUBIC), CenterCrop(N_PX)])
    np.testing.assert_array_equal(resize_crop(rgb, N_PX), theirs(Image.fromarray(rgb)))


@pytest.mark.parametrize("n_px", [64, 224, 225, 288, 336])
def test_every_model_gets_a_square_of_its_own_size(n_px: int) -> None:
    rgb = picture(173, 97)
    theirs = Compose([Resize(n_px, InterpolationMode.BICUBIC), CenterCrop(n_px)])
    np.testing.assert_array_equal(resize_crop(rgb, n_px), theirs(Image.fromarray(rgb)))


def test_an_image_of_the_right_size_is_unchanged() -> None:
    rgb = picture(N_PX, N_PX)
    np.testing.assert_array_equal(resize_crop(rgb, N_PX), rgb)


@pytest.mark.parametrize(
    ("width", "height", "box"),
    [
        (320, 240, ClipBox(298, 224, 37, 0)),
        (240, 320, ClipBox(224, 298, 0, 37)),
        (224, 224, ClipBox(224, 224, 0, 0)),
        (225, 224, ClipBox(225, 224, 0, 0)),  # half a pixel to the left: to even, 0
        (227, 224, ClipBox(227, 224, 2, 0)),  # one and a half: to even, 2
    ],
)
def test_the_square_is_in_the_centre_of_the_resized_image(
    width: int, height: int, box: ClipBox
) -> None:
    assert clip_box(width, height, 224) == box
