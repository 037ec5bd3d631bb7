"""Folders of images as videos."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from rayclip.errors import BadVideo
from rayclip.media.clips import cut
from rayclip.media.frame_choice import FrameChoice
from rayclip.media.frames import divide, iter_frames, open_selected
from rayclip.media.frames_at import frames_at
from rayclip.media.image_folder import ImageFolder, natural_order
from rayclip.media.segments import WHOLE, Segment


def picture(number: int, size: tuple[int, int] = (24, 16)) -> Image.Image:
    rng = np.random.default_rng(number)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images in several formats, named so that the order of bytes is another one."""
    for number in range(12):
        suffix = ("jpg", "png", "webp", "JPEG")[number % 4]
        picture(number).save(tmp_path / f"frame {number}.{suffix}")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.jpg").write_text("no image")
    return tmp_path


def shown(
    path: Path | str, choice: FrameChoice, fps: int = 1, segment: Segment = WHOLE
) -> list[tuple[float, bytes]]:
    source = ImageFolder(str(path), Fraction(fps))
    with open_selected(source, choice, segment=segment) as video:
        return [
            (ms, selected.rgb().tobytes())
            for selected in video.frames
            for ms in selected.timestamps_ms
        ]


def opened_by_pillow(folder: Path) -> list[bytes]:
    names = (next(folder.glob(f"frame {number}.*")) for number in range(12))
    return [Image.open(path).convert("RGB").tobytes() for path in names]


def test_the_images_are_shown_in_natural_order_with_the_pixels_of_pillow(folder: Path) -> None:
    images = opened_by_pillow(folder)
    assert shown(folder, FrameChoice()) == [(1000.0 * n, image) for n, image in enumerate(images)]


@pytest.mark.parametrize(
    ("choice", "fps", "expected"),
    [
        (FrameChoice(every=5), 2, {0: 0, 2500: 5, 5000: 10}),
        (FrameChoice(total=3), 1, {2000: 2, 6000: 6, 10_000: 10}),
        (FrameChoice(keyframes=True, end=2), 1, {0: 0, 1000: 1}),
        (FrameChoice(start=9.5), 1, {10_000: 10, 11_000: 11}),
        (FrameChoice(every=2, start=1, end=6), 1, {1000: 1, 3000: 3, 5000: 5}),
        (FrameChoice(total=2, start=4, end=8), 1, {5000: 5, 7000: 7}),
        (FrameChoice(Fraction(1)), 4, {0: 1, 1000: 5, 2000: 9}),
        (FrameChoice(Fraction(2), start=1.5, end=3), 1, {1500: 1, 2000: 2, 2500: 2}),
        (FrameChoice(Fraction(1, 60)), 1, {0: 0}),
    ],
)
def test_selections_follow_the_rule_for_videos(
    folder: Path, choice: FrameChoice, fps: int, expected: dict[int, int]
) -> None:
    images = opened_by_pillow(folder)
    found = shown(folder, choice, fps)
    assert {ms: images.index(image) for ms, image in found} == expected


def test_only_the_selected_images_are_read(folder: Path) -> None:
    for number in range(12):
        if number % 5:
            next(folder.glob(f"frame {number}.*")).write_bytes(b"broken")
    assert len(shown(folder, FrameChoice(every=5))) == 3


def test_segments_of_a_folder_equal_the_whole(folder: Path) -> None:
    for choice in (FrameChoice(), FrameChoice(Fraction(3), start=1.2, end=10.1)):
        source = ImageFolder(str(folder), Fraction(1))
        segments = divide(source, choice, segment_s=2, max_segments=4)
        assert len(segments) == 4
        joined = [one for segment in segments for one in shown(folder, choice, 1, segment)]
        assert joined == shown(folder, choice)


def test_a_folder_on_a_storage_is_read_like_a_local_one(folder: Path, memory_url: str) -> None:
    for path in folder.iterdir():
        MemoryFileSystem().pipe_file(f"{memory_url}/frames/{path.name}", path.read_bytes())
    url = f"{memory_url}/frames/"
    assert shown(url, FrameChoice(every=4)) == shown(folder, FrameChoice(every=4))


@pytest.mark.parametrize("fps", [None, Fraction(2), Fraction(1, 60)])
def test_frames_at_given_times_are_those_of_the_extraction(
    folder: Path, fps: Fraction | None
) -> None:
    taken = shown(folder, FrameChoice(fps), 3)
    found = frames_at(ImageFolder(str(folder), Fraction(3)), [ms for ms, _ in taken], fps)
    assert [(ms, rgb.tobytes()) for ms, rgb in found] == taken


def test_a_part_can_be_cut(folder: Path, tmp_path: Path) -> None:
    part = tmp_path / "part.mp4"
    assert not cut(ImageFolder(str(folder), Fraction(2)), str(part), 1.0, 2.5)
    assert [ms for ms, _ in iter_frames(str(part))] == [0, 500, 1000]


def test_images_are_upright_and_without_transparency(tmp_path: Path) -> None:
    upright = picture(0)
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise to see it
    turned.save(tmp_path / "1.png", exif=exif)
    upright.convert("RGBA").save(tmp_path / "2.png")
    upright.convert("P").save(tmp_path / "3.png")
    palette = upright.convert("P").convert("RGB").tobytes()
    assert [image for _, image in shown(tmp_path, FrameChoice())] == [
        upright.tobytes(),
        upright.tobytes(),
        palette,
    ]


def test_images_of_several_sizes_keep_theirs(tmp_path: Path) -> None:
    picture(0, (20, 10)).save(tmp_path / "1.png")
    picture(1, (10, 30)).save(tmp_path / "2.png")
    with open_selected(ImageFolder(str(tmp_path), Fraction(1)), FrameChoice()) as video:
        assert [selected.rgb().shape for selected in video.frames] == [(10, 20, 3), (30, 10, 3)]


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"nonsense", "3.jpg is no jpg, png or webp image"), (None, "3.jpg cannot be decoded")],
)
def test_a_broken_image_is_named(folder: Path, content: bytes | None, says: str) -> None:
    path = folder / "frame 3.jpg"
    (folder / "frame 3.JPEG").unlink()
    picture(3, (200, 200)).save(path)
    path.write_bytes(path.read_bytes()[:3000] if content is None else content)
    with pytest.raises(BadVideo, match=says) as caught:
        shown(folder, FrameChoice())
    assert (caught.value.stage, caught.value.code) == ("decode", "bad_image")


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path: None, "not_found"),
        (lambda path: path.mkdir(), "no_images"),
        (lambda path: path.write_text("a video?"), "no_images"),
    ],
)
def test_what_is_no_folder_of_images_is_an_error_of_its_own(
    tmp_path: Path, make: Any, code: str
) -> None:
    path = tmp_path / "frames"
    make(path)
    with pytest.raises(BadVideo) as caught:
        shown(path, FrameChoice())
    assert (caught.value.stage, caught.value.code) == ("open", code)


def test_a_range_without_an_image_is_an_error(folder: Path) -> None:
    with pytest.raises(BadVideo, match="it has no frame from 12 s to the end") as caught:
        shown(folder, FrameChoice(start=12))
    assert caught.value.code == "empty_range"


def test_numbers_in_names_count_as_numbers() -> None:
    names = ["b1", "a10.jpg", "a2.jpg", "10.jpg", "9.jpg", "a02.jpg", "a.jpg", "1a2", "1a10", "é1"]
    assert sorted(names, key=natural_order) == [
        "1a2", "1a10", "9.jpg", "10.jpg", "a02.jpg", "a2.jpg", "a10.jpg", "a.jpg", "b1", "é1",
    ]  # fmt: skip
