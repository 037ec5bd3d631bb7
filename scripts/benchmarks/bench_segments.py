"""Decode one video as a whole and in parallel segments: compare the time and the frames."""

from __future__ import annotations

import hashlib
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from tables import number, table

from rayclip.errors import UsageError
from rayclip.media.frame_choice import FrameChoice
from rayclip.media.frames import divide, open_selected
from rayclip.media.segments import Segment
from rayclip.model.preprocess import Resizing, resize

N_PX = 224


@dataclass(frozen=True)
class Divided:
    """A video decoded in segments.

    Attributes:
        segments: number of segments.
        frames: number of frames.
        seconds: wall time of the fastest round, with all segments in parallel.
        digest: hash of all timestamps and resized frames, in order.
    """

    segments: int
    frames: int
    seconds: float
    digest: str


def measured(
    video: Path, fps: Fraction | None, counts: Sequence[int], rounds: int
) -> list[Divided]:
    """Decode a video in each number of segments, one process per segment, in every round.

    Raises:
        UsageError: the video cannot be cut into this many segments.
        AssertionError: rounds differ in their frames.
    """
    cuts = {count: _segments(video, count) for count in counts}
    found: dict[int, Divided] = {}
    for _ in range(rounds):
        for count, segments in cuts.items():
            now = _decode(video, fps, segments)
            before = found.get(count, now)
            assert now.digest == before.digest, f"the frames of {video} differ between rounds"
            found[count] = min(now, before, key=lambda divided: divided.seconds)
    return list(found.values())


def report(video: Path, fps: Fraction | None, results: Sequence[Divided]) -> str:
    """A table with the speedup over the first row."""
    rows = [
        [
            str(result.segments),
            str(result.frames),
            number(result.seconds),
            number(results[0].seconds / result.seconds),
            "yes" if result.digest == results[0].digest else "NO",
        ]
        for result in results
    ]
    rate = "every frame" if fps is None else f"{fps} fps"
    header = ["segments", "frames", "wall s", "speedup", "same frames"]
    return f"{video.name}, {rate}, decoded and resized\n\n{table(header, rows)}"


def _segments(video: Path, count: int) -> list[Segment]:
    # a segment of no length asks for as many as are allowed
    segments = divide(str(video), FrameChoice(), 1e-6, count)
    if len(segments) != count:
        raise UsageError(f"{video} has too few keyframes for {count} segments.")
    return segments


def _decode(video: Path, fps: Fraction | None, segments: Sequence[Segment]) -> Divided:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(segments), mp_context=spawn) as processes:
        list(processes.map(_nothing, segments))  # start all processes first
        started = time.perf_counter()
        parts = list(
            processes.map(_decode_segment, *zip(*((video, fps, s) for s in segments), strict=True))
        )
        seconds = time.perf_counter() - started
    digest = hashlib.sha256(b"".join(frame for part in parts for frame in part)).hexdigest()
    return Divided(len(segments), sum(map(len, parts)), seconds, digest)


def _nothing(segment: Segment) -> None:
    pass


def _decode_segment(video: Path, fps: Fraction | None, segment: Segment) -> list[bytes]:
    """The hash of each frame and its timestamps."""
    digests = []
    with open_selected(str(video), FrameChoice(fps), segment=segment) as wanted:
        for shown in wanted.frames:
            square = resize(shown.rgb(), Resizing(N_PX))
            digest = hashlib.blake2b(square.tobytes(), digest_size=16)
            digest.update(repr(shown.timestamps_ms).encode())
            digests.append(digest.digest())
    return digests
