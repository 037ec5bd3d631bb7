"""Long videos are divided among threads, with the features of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from threading import Lock, Semaphore
from unittest.mock import MagicMock

import numpy as np
import pytest
from video_factories import numbered_frame, write_video

from rayclip.actors import segment_jobs
from rayclip.actors.decoder import VideoExtractor
from rayclip.actors.job import ExtractionJob, ModelJob, UncountedAttempts
from rayclip.actors.messages import Features, Frame
from rayclip.local.devices import LocalPending
from rayclip.local.segments import ThreadSegments
from rayclip.media.frame_choice import FrameChoice
from rayclip.media.segments import WHOLE
from rayclip.model.preprocess import Resizing
from rayclip.output.rows import Extraction

FRAMES = 60
CORES = 2
FINE = {"g": "10", "keyint_min": "10", "sc_threshold": "0"}
JOB = ExtractionJob((ModelJob(Resizing(8)),), FrameChoice(), "stem", 3, "/", {})


class Encoders:
    """Means of frames as features."""

    def submit(self, frames: list[Frame], models: Sequence[int]) -> LocalPending:
        future: Future[Features] = Future()
        future.set_result(np.stack(frames).mean(axis=(1, 2), dtype=np.float32))
        return LocalPending([future], MagicMock())

    def wait(self, pending: Sequence[LocalPending]) -> Sequence[LocalPending]:
        return pending


class Machine:
    """Makes extractors; knows the jobs of segments, and may refuse to decode one of them."""

    def __init__(self, refused: int | None = None, job: ExtractionJob = JOB) -> None:
        self.job = job
        self.segments: list[ExtractionJob] = []
        self.cores = Semaphore(CORES)
        self._refused = refused
        self._lock = Lock()

    def extractor(self, job: ExtractionJob) -> VideoExtractor:
        with self._lock:
            self.segments.append(job)
            is_refused = len(self.segments) - 1 == self._refused
        encoders = Refusing() if is_refused else Encoders()
        return VideoExtractor(job, encoders, UncountedAttempts(), watching=lambda _: self.cores)

    def extract(self, video: Path | str) -> Extraction:
        with ThreadPoolExecutor(CORES) as pool:
            segments = ThreadSegments(self.job, self.extractor, self.cores, pool, CORES)
            extractor = VideoExtractor(
                self.job, Encoders(), UncountedAttempts(), segments, lambda _: self.cores
            )
            (result,) = extractor.run([str(video)], self.job.videos([str(video)]))
        assert result.extraction is not None, result.failure
        return result.extraction


class Refusing(Encoders):
    def submit(self, frames: list[Frame], models: Sequence[int]) -> LocalPending:
        future: Future[Features] = Future()
        future.set_exception(RuntimeError("no"))
        return LocalPending([future], MagicMock())


@pytest.fixture
def video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A video that is long for its segments."""
    monkeypatch.setattr(segment_jobs, "SEGMENT_S", 2.0)
    frames = [numbered_frame(number) for number in range(FRAMES)]
    return write_video(tmp_path / "a.mp4", frames, fps=10, codec="libx264", options=FINE)


@pytest.fixture
def whole(video: Path) -> Extraction:
    (result,) = VideoExtractor(JOB, Encoders(), UncountedAttempts()).run(
        [str(video)], JOB.videos([str(video)])
    )
    assert result.extraction is not None
    return result.extraction


def same(some: Extraction, others: Extraction) -> bool:
    return all(map(np.array_equal, some, others))


def test_a_long_video_is_divided_and_has_the_features_of_the_whole(
    video: Path, whole: Extraction
) -> None:
    machine = Machine()
    assert same(machine.extract(video), whole)
    assert len(whole.clip) == FRAMES
    assert len(machine.segments) == CORES
    assert WHOLE not in [job.segment for job in machine.segments]


@pytest.mark.parametrize("part", ["#t=0.75,5.35", "#t=1.5", "#t=,5.01"])
@pytest.mark.parametrize(
    "choice", [FrameChoice(), FrameChoice(Fraction(4)), FrameChoice(keyframes=True)]
)
def test_a_long_range_is_divided_and_has_the_features_of_the_undivided_range(
    video: Path, part: str, choice: FrameChoice
) -> None:
    job, name = replace(JOB, choice=choice), f"{video}{part}"
    (result,) = VideoExtractor(job, Encoders(), UncountedAttempts()).run([name], JOB.videos([name]))
    assert result.extraction is not None
    machine = Machine(job=job)
    assert same(machine.extract(name), result.extraction)
    assert len(machine.segments) == CORES


@pytest.mark.parametrize("choice", [FrameChoice(every=7), FrameChoice(total=9)])
def test_if_frames_are_counted_a_long_video_is_not_divided(
    video: Path, choice: FrameChoice
) -> None:
    machine = Machine(job=replace(JOB, choice=choice))
    assert len(machine.extract(video).clip) == 9
    assert machine.segments == []


def test_a_thread_that_waits_for_segments_lends_its_core(video: Path, whole: Extraction) -> None:
    machine = Machine()
    machine.cores.acquire()  # by another video
    assert same(machine.extract(video), whole)
    assert machine.cores.acquire(blocking=False)
    assert not machine.cores.acquire(blocking=False)


@pytest.mark.parametrize("refused", [0, 1])
def test_if_a_segment_fails_the_whole_video_decides(
    refused: int, video: Path, whole: Extraction
) -> None:
    machine = Machine(refused)
    assert same(machine.extract(video), whole)
    assert [machine.cores.acquire(blocking=False) for _ in range(CORES + 1)] == [True, True, False]
