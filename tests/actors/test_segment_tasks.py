"""Long videos in segments: the same features as decoding them whole, whatever happens to a
segment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import shapes
from ray.exceptions import NodeDiedError, ObjectLostError, WorkerCrashedError
from run_cli import ON_LOOPBACK, call, wait_until
from video_factories import numbered_frame, write_video

from rayclip.actors import segment_tasks as module
from rayclip.actors.job import ExtractionJob, ModelJob, SegmentFailed
from rayclip.actors.segment_tasks import MAX_LOSSES, RemoteSegments, division_for
from rayclip.media.frame_choice import FrameChoice
from rayclip.media.frames import divide
from rayclip.media.segments import WHOLE, Segment, inner_boundaries, split_at
from rayclip.model.preprocess import Resizing

FINE = {"g": "10", "keyint_min": "10", "sc_threshold": "0"}


def test_borders_are_evenly_spaced() -> None:
    assert inner_boundaries(100.0, 20.0, max_segments=10) == [20.0, 40.0, 60.0, 80.0]


def test_there_are_no_more_segments_than_are_allowed() -> None:
    assert inner_boundaries(100.0, 1.0, max_segments=2) == [50.0]


@pytest.mark.parametrize("duration_s", [0.0, 19.0, 39.9])
def test_a_short_video_has_no_borders(duration_s: float) -> None:
    assert inner_boundaries(duration_s, 20.0, max_segments=8) == []


def test_segments_go_from_the_beginning_to_the_end() -> None:
    assert split_at([300, 100]) == [
        Segment(None, 100),
        Segment(100, 300),
        Segment(300, None),
    ]
    assert split_at([]) == [WHOLE]


def test_a_video_is_cut_where_decoding_can_begin(tmp_path: Path) -> None:
    frames = [numbered_frame(number) for number in range(60)]
    video = write_video(tmp_path / "a.mp4", frames, fps=10, codec="libx264", options=FINE)
    segments = divide(str(video), FrameChoice(), segment_s=2.0, max_segments=3)
    assert len(segments) == 3
    borders = [segment.since for segment in segments[1:]]
    assert [border and border % 1024 for border in borders] == [0, 0]  # 10 frames of 1/10240 s


def test_a_video_with_one_random_access_point_is_not_cut(tmp_path: Path) -> None:
    frames = [numbered_frame(number) for number in range(60)]
    options = {"g": "1000", "sc_threshold": "0"}
    video = write_video(tmp_path / "a.mp4", frames, fps=10, codec="libx264", options=options)
    segments = divide(str(video), FrameChoice(), segment_s=2.0, max_segments=3)
    assert len([segment for segment in segments if segment.since]) == 0


class Tasks:
    """A fake Ray: tasks that extract two segments of two blocks each.

    Attributes:
        room: whether any task starts.
        errors: raised before a block, by segment and block, one per attempt, from the last.
    """

    def __init__(self) -> None:
        self.room = True
        self.errors: dict[tuple[int, int], list[Exception]] = {}
        self.started = 0
        self.cancelled = 0

    def remote(self, _: Any) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._start))

    def _start(
        self, job: ExtractionJob, control: None, video: str, models: Sequence[int]
    ) -> Iterator[Any]:
        self.started += 1
        segment = 0 if job.segment.since is None else 1
        return iter([None, (segment, 1), (segment, 2)])

    def wait(self, streams: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], Any]:
        return (streams[:1] if self.room else []), []

    def get(self, block: tuple[int, int] | None) -> tuple[int, int] | None:
        if block is not None and self.errors.get(block):
            raise self.errors[block].pop()
        return block

    def cancel(self, _: Any) -> None:
        self.cancelled += 1

    def blocks(self) -> list[Any]:
        job = ExtractionJob(
            models=(ModelJob(Resizing(8)),),
            choice=FrameChoice(None),
            naming="stem",
            max_attempts=3,
            folder_of_inputs="/",
            storage_options={},
        )
        segments = RemoteSegments(job, None, division_for(2))
        return list(segments._blocks("long.mp4", (0,), split_at([100])))


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Tasks:
    tasks = Tasks()
    monkeypatch.setattr(module, "ray", tasks)
    return tasks


ALL = [(0, 1), (0, 2), (1, 1), (1, 2)]


@pytest.mark.parametrize("lost", ALL)
@pytest.mark.parametrize("error", [NodeDiedError("gone"), ObjectLostError("1f", "an address", "a")])
def test_only_a_segment_that_was_lost_with_its_node_is_extracted_again(
    lost: tuple[int, int], error: Exception, tasks: Tasks
) -> None:
    tasks.errors[lost] = [error] * (MAX_LOSSES - 1)
    assert tasks.blocks() == ALL
    assert tasks.started == 2 + MAX_LOSSES - 1
    assert tasks.cancelled == 2


def test_a_segment_that_is_lost_repeatedly_is_given_up(tasks: Tasks) -> None:
    tasks.errors[1, 1] = [NodeDiedError("gone")] * MAX_LOSSES
    with pytest.raises(SegmentFailed):
        tasks.blocks()


def test_a_segment_that_ends_its_process_is_not_retried(tasks: Tasks) -> None:
    tasks.errors[1, 1] = [WorkerCrashedError()]
    with pytest.raises(SegmentFailed):
        tasks.blocks()
    assert (tasks.started, tasks.cancelled) == (2, 2)


def test_a_video_is_not_divided_if_no_segment_can_start(tasks: Tasks) -> None:
    tasks.room = False
    with pytest.raises(SegmentFailed, match="no node has room"):
        tasks.blocks()
    assert tasks.cancelled == 2


@pytest.mark.ray
def test_a_divided_video_has_the_same_bits_as_the_whole(cluster: str, tmp_path: Path) -> None:
    video = tmp_path / "long.mp4"
    scenes = [("red", "circle"), ("blue", "star"), ("green", "triangle"), ("yellow", "cross")]
    shapes.write_video(video, scenes, fps=25, seconds_per_scene=2)
    program = f"""
import rayclip, rayclip.session.resources, rayclip.actors.segment_tasks
rayclip.session.resources.ENCODING_SHARE = 0.5  # of 4 CPUs: two are left to decode
rayclip.actors.segment_tasks.SEGMENT_S = 1.5
for fps in (None, "2.5"):
    summary = rayclip.extract(
        {str(video)!r}, model_name="demo", device="cpu", extraction_fps=fps,
        on_extraction="save_numpy", output_path=f"{tmp_path}/divided-{{fps}}", address={cluster!r},
    )
    assert summary.done == 1, summary
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, **ON_LOOPBACK},
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        wait_until(_a_segment_is_extracted, "a task for a segment", running)
        _, errors = running.communicate()
    assert running.returncode == 0, errors
    for fps, frames in ((None, 200), ("2.5", 20)):
        words = ["extract", video, "--model-name", "demo", "--address", "none"]
        words += ["--on-extraction", "save_numpy", "--output-path", tmp_path / f"whole-{fps}"]
        assert call(*words, *(["--extraction-fps", fps] if fps else [])).status == 0
        for kind in ("clip", "timestamps_ms", "fps"):
            divided, whole = (
                np.load(tmp_path / f"{name}-{fps}/clip/demo/long_{kind}.npy")
                for name in ("divided", "whole")
            )
            np.testing.assert_array_equal(divided, whole)
        assert len(np.load(tmp_path / f"whole-{fps}/clip/demo/long_clip.npy")) == frames


def _a_segment_is_extracted() -> bool:
    titles = (process.info["cmdline"] or [""] for process in psutil.process_iter(["cmdline"]))
    return any(title[0].startswith("ray::extract_segment") for title in titles)
