"""Memory grows neither with the number of videos nor with their length."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from long_video import repeated
from video_factories import numbered_frames, textured_frames, write_video

MANY, WARM_UP = 1000, 250
LONG_FRAMES = 30_000  # 20 minutes

EXTRACT = """
import os, resource, sys
from fractions import Fraction

import numpy as np

from rayclip.model.preprocess import Resizing
from rayclip.actors.decoder import VideoExtractor
from rayclip.actors.job import ExtractionJob, ModelJob, UncountedAttempts
from rayclip.media.frame_choice import FrameChoice

class Encoded:
    def __init__(self, frames, models):
        self.frames = frames
    def done(self):
        return self.frames is None  # once waited for, so that memory holds as many frames as it may
    def result(self):
        if self.frames is not None:
            means = np.stack(self.frames).mean(axis=(1, 2, 3), dtype=np.float32)
            self.features = np.repeat(means[:, None], 64, axis=1)
            self.frames = None
        return [self.features]

class Encoders:
    submit = Encoded
    def wait(self, pending):
        pending[0].result()
        return pending[:1]

def kilobytes():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024

def extract(videos):
    choice = FrameChoice(Fraction(5))
    job = ExtractionJob((ModelJob(Resizing(64)),), choice, "stem", 3, "/", {})
    yield from VideoExtractor(job, Encoders(), UncountedAttempts()).run(videos, job.videos(videos))
"""

needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="/proc is missing")


def measured(program: str, *words: object) -> list[int]:
    """The numbers that a program prints, run in its own process."""
    ended = subprocess.run(
        [sys.executable, "-c", EXTRACT + program, *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [int(number) for number in ended.stdout.split()]


AFTER_EACH = """
videos = (sys.argv[4:][i % len(sys.argv[4:])] for i in range(int(sys.argv[1])))
results = [(kilobytes(), result.frames) for result in extract(videos)]
used, frames = zip(*results)
warm_up = int(sys.argv[2])
print(sum(frames), max(used[:warm_up]), max(used[warm_up:]))
"""


@needs_proc
def test_a_thousand_short_videos_take_no_more_memory_than_the_first(tmp_path: Path) -> None:
    """Some are decoded selectively, some in full, and some are broken in several ways."""
    planned = write_video(tmp_path / "a.mp4", textured_frames(20), codec="libx264")
    in_full = write_video(tmp_path / "b.avi", textured_frames(20))
    (tmp_path / "broken.mp4").write_bytes(planned.read_bytes()[:-600])
    (tmp_path / "text.mp4").write_text("this is no video")
    videos = [planned, in_full, tmp_path / "broken.mp4", tmp_path / "text.mp4"]
    frames, first_kb, later_kb = measured(AFTER_EACH, MANY, WARM_UP, "", *videos)
    assert frames == MANY / len(videos) * 2 * 10
    assert later_kb - first_kb < 3 * 1024


UNCOLLECTED = """
import gc
gc.collect()
gc.disable()
(result,) = extract(sys.argv[1:])
del result
print(gc.collect())
"""


def test_frames_are_freed_without_garbage_collection(tmp_path: Path) -> None:
    """The garbage collector is triggered by the number of objects, not by their size."""
    frames = textured_frames(100)  # half of them are selected
    upright = write_video(tmp_path / "a.mp4", frames, codec="libx264")
    turned = write_video(tmp_path / "b.mp4", frames, orientation={"degrees": 90})
    for video in (upright, turned):
        (garbage,) = measured(UNCOLLECTED, video)
        assert garbage < 50  # fewer than one for each frame


PEAK = """
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(result,) = extract(sys.argv[1:])
print(result.frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@needs_proc
def test_the_memory_for_a_long_video_is_bounded(tmp_path: Path) -> None:
    short = write_video(tmp_path / "short.mp4", numbered_frames(250), fps=25, codec="libx264")
    long = repeated(short, tmp_path / "long.mp4", LONG_FRAMES // 250)
    frames, kb = measured(PEAK, long)
    assert frames == LONG_FRAMES / 5
    squares_kb = frames * 64 * 64 * 3 // 1024
    assert squares_kb > 70 * 1024  # if all were kept
    assert kb < 32 * 1024
