"""Small valid videos of many formats, and damaged copies of them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import shapes
from fuzz_mutations import MUTATIONS
from svt_av1 import contain_svt_av1

SIZE = (160, 120)
FRAMES, FPS = 24, 25
UNTOUCHED = "untouched"
EVERY = 7  # damaged videos per undamaged one; three runs share them evenly
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}


@dataclass(frozen=True)
class Format:
    """How to write a video: the encoder of libav, the pixel format and options of the muxer."""

    encoder: str
    pix_fmt: str = "yuv420p"
    muxing: tuple[tuple[str, str], ...] = ()


FORMATS = {
    "h264.mp4": Format("libx264"),
    "h264_fragments.mp4": Format("libx264", muxing=tuple(FRAGMENTS.items())),
    "h264.mkv": Format("libx264"),
    "h264.ts": Format("libx264"),
    "hevc.mp4": Format("libx265"),
    "vp8.webm": Format("libvpx"),
    "vp9.webm": Format("libvpx-vp9"),
    "av1.mp4": Format("libsvtav1"),
    "mpeg4.avi": Format("mpeg4"),
    "mpeg2.mpg": Format("mpeg2video"),
    "flv1.flv": Format("flv"),
    "wmv2.asf": Format("wmv2"),
    "mjpeg.mov": Format("mjpeg", "yuvj420p"),
    "prores.mov": Format("prores_ks", "yuv422p10le"),
    "ffv1.mkv": Format("ffv1"),
    "gif.gif": Format("gif", "rgb8"),
}
"""File name -> format; formats whose encoder this libav lacks are skipped."""


@dataclass(frozen=True)
class Mutant:
    """A video to test.

    Attributes:
        path: the file.
        mutation: the damage, one of ``MUTATIONS``, or ``untouched``.
        source: the undamaged video.
    """

    path: Path
    mutation: str
    source: Path


def draw_sources(folder: Path) -> list[Path]:
    """A second of moving shapes, in every format that this libav can write."""
    folder.mkdir(parents=True)
    drawn = folder / "drawn.mp4"
    width, height = SIZE
    shapes.write_video(
        drawn,
        [("red", "circle"), ("blue", "star")],
        width=width,
        height=height,
        seconds_per_scene=FRAMES / 2 / FPS,
    )
    with av.open(str(drawn)) as video:
        frames = list(video.decode(video=0))
    drawn.unlink()
    written = {n: f for n, f in FORMATS.items() if f.encoder in av.codecs_available}
    with contain_svt_av1():
        for name, written_as in written.items():
            _write(folder / name, written_as, frames)
    return [folder / name for name in written]


def _write(path: Path, written_as: Format, frames: Iterable[av.VideoFrame]) -> None:
    quiet = {"x265-params": "log-level=none"} if written_as.encoder == "libx265" else {}
    with av.open(str(path), "w", options=dict(written_as.muxing)) as output:
        stream: Any = output.add_stream(written_as.encoder, FPS, options=quiet)
        stream.width, stream.height = SIZE
        stream.pix_fmt = written_as.pix_fmt
        for number, frame in enumerate(frames):
            picture = frame.reformat(format=written_as.pix_fmt)
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            output.mux(stream.encode(picture))
        output.mux(stream.encode())


def make_mutants(sources: Sequence[Path], count: int, seed: int, folder: Path) -> Iterator[Mutant]:
    """Write ``count`` damaged videos, and undamaged ones among them, to a new folder.

    Each depends only on the seed, its number and the sources.
    """
    folder.mkdir(parents=True)
    contents = {source: source.read_bytes() for source in sources}
    names = list(MUTATIONS)
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        source, other = rng.choice(sources), rng.choice(sources)
        mutation = names[number % len(names)]
        data = MUTATIONS[mutation](contents[source], contents[other], rng)
        path = folder / f"{number:05}_{mutation.replace(' ', '_')}_{source.name}"
        path.write_bytes(data)
        yield Mutant(path, mutation, source)
        if number % EVERY == 0:
            undamaged = sources[number // EVERY % len(sources)]
            path = folder / f"{number:05}_{UNTOUCHED}_{undamaged.name}"
            path.write_bytes(contents[undamaged])
            yield Mutant(path, UNTOUCHED, undamaged)
