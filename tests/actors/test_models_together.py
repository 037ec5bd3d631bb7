"""The per-video step with several models: decoded once, and each model succeeds or fails alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from video_factories import numbered_frame, write_video

from rayclip.actors import segment_jobs
from rayclip.actors.decoder import WINDOW_BYTES, VideoExtractor
from rayclip.actors.flow_control import CHUNK_BYTES
from rayclip.actors.job import ExtractionJob, ModelJob, UncountedAttempts
from rayclip.actors.messages import Features, Frame
from rayclip.errors import RunStopped
from rayclip.io.crash_log import Cause, Death
from rayclip.media.decoding import SelectedFrame
from rayclip.media.frames import FrameChoice
from rayclip.model import squares as squares_module
from rayclip.model.preprocess import Resizing, resize
from rayclip.output.array_folder import ArrayFolder
from rayclip.output.finished import iter_features
from rayclip.output.folder import FeatureFolder
from rayclip.output.rows import Extraction
from rayclip.output.shards import ShardFolder
from rayclip.report.results import VideoResult

DIMS = (4, 6, 5)
RESIZINGS = (Resizing(8), Resizing(12, "squash"), Resizing(8))
NAMES = ("first", "second", "third")
FRAMES = 5

Make = Callable[..., str]
Features_ = Callable[[int, NDArray[np.float32]], NDArray[np.float32]]


class Chunk:
    """Frames in flight; their features are computed when ``result`` is called."""

    def __init__(self, encoders: Encoders, frames: list[Frame], models: Sequence[int]) -> None:
        self._encoders, self._frames, self._models = encoders, frames, models
        self.size = sum(frame.nbytes for frame in frames)
        self.is_done = False

    def done(self) -> bool:
        return self.is_done

    def end(self) -> None:
        self._encoders.in_flight -= 0 if self.is_done else self.size
        self.is_done = True

    def result(self) -> list[Features | Exception]:
        self.end()
        return [
            self._encoders.features_of(model, self._frames, self._models) for model in self._models
        ]


class Encoders:
    """Three models in this process, whose feature of a frame is the number in it.

    Attributes:
        change: changes the features of a model, or raises.
        sent: for each chunk, the bytes of a frame and the models.
        in_flight, most: bytes of frames that are not back, now and at most.
    """

    def __init__(self, change: Features_ = lambda model, features: features) -> None:
        self.change = change
        self.sent: list[tuple[int, tuple[int, ...]]] = []
        self.in_flight = self.most = 0

    def submit(self, frames: list[Frame], models: Sequence[int]) -> Chunk:
        self.sent.append((frames[0].nbytes, tuple(models)))
        chunk = Chunk(self, frames, models)
        assert chunk.size <= CHUNK_BYTES
        self.in_flight += chunk.size
        self.most = max(self.most, self.in_flight)
        return chunk

    def wait(self, pending: Sequence[Chunk]) -> Sequence[Chunk]:
        done = [chunk for chunk in pending if chunk.is_done] or pending[:1]
        for chunk in done:
            chunk.end()
        return done

    def features_of(
        self, model: int, frames: list[Frame], models: Sequence[int]
    ) -> Features | Exception:
        squares = squares_module.squares_of(tuple(RESIZINGS[number] for number in models))
        seen = [squares.view(frame, list(models).index(model)) for frame in frames]
        assert {square.shape[0] for square in seen} == {RESIZINGS[model].n_px}
        numbers = np.round([square.mean() / 8 - 1 for square in seen])
        features = np.repeat(numbers[:, None], DIMS[model], axis=1).astype(np.float32)
        try:
            return self.change(model, features)
        except ValueError as error:
            return error


class Attempts(UncountedAttempts):
    """A second attempt at a task, whose videos crashed this often."""

    is_retry = True

    def __init__(self, crashes: int = 0) -> None:
        self.ended: list[int] = []
        self._crashes = crashes

    def begin(self, position: int, video: str) -> Sequence[Death]:
        return [Death(Cause.CRASH, "Segmentation fault", (position,))] * self._crashes

    def end(self, position: int, results: Sequence[VideoResult]) -> None:
        self.ended.append(len(results))


def job(folders: Sequence[FeatureFolder | None] = (None,) * 3) -> ExtractionJob:
    models = tuple(map(ModelJob, RESIZINGS, folders, NAMES))
    return ExtractionJob(models, FrameChoice(), "stem", 3, "/", {})


@pytest.fixture
def video(tmp_path: Path) -> Make:
    def make(name: str = "a.mp4", count: int = FRAMES, first: int = 0) -> str:
        frames = [numbered_frame(first + number, 16, 16) for number in range(count)]
        return str(write_video(tmp_path / name, frames, fps=10))

    return make


@pytest.fixture
def folders(tmp_path: Path) -> list[ArrayFolder]:
    folders = [
        ArrayFolder(str(tmp_path / name), dim, {}) for name, dim in zip(NAMES, DIMS, strict=True)
    ]
    for folder in folders:
        folder.prepare()
    return folders


def extract(
    videos: Sequence[str],
    encoders: Encoders | None = None,
    attempts: UncountedAttempts | None = None,
    folders: Sequence[FeatureFolder | None] = (None,) * 3,
    lacking: Sequence[Sequence[int]] | None = None,
) -> list[VideoResult]:
    extractor = VideoExtractor(
        job(folders), encoders or Encoders(), attempts or UncountedAttempts()
    )
    return list(extractor.run(videos, job(folders).videos(videos, lacking=lacking)))


def numbers(result: VideoResult) -> list[int]:
    assert result.extraction is not None, result.failure
    return [int(number) for number in result.extraction.clip[:, -1]]


def test_each_video_has_a_result_of_each_model_in_order(video: Make) -> None:
    paths = [video("a.mp4"), video("b.mp4", first=10)]
    results = extract(paths)
    assert [(r.video, r.model) for r in results] == [(p, name) for p in paths for name in NAMES]
    assert [r.extraction.clip.shape[1] for r in results if r.extraction] == [*DIMS, *DIMS]
    assert [numbers(r) for r in results] == [[0, 1, 2, 3, 4]] * 3 + [[10, 11, 12, 13, 14]] * 3
    times = [r.extraction.timestamps_ms.tolist() for r in results if r.extraction]
    assert times == [[0.0, 100.0, 200.0, 300.0, 400.0]] * 6


def test_a_frame_is_decoded_once_and_resized_and_sent_once_for_each_preprocessing(
    video: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted: list[SelectedFrame] = []
    resized: list[Resizing] = []
    rgb: Any = SelectedFrame.rgb
    monkeypatch.setattr(SelectedFrame, "rgb", lambda self: (converted.append(self), rgb(self))[1])

    def counted(picture: Any, resizing: Resizing, *out: Any) -> Any:
        resized.append(resizing)
        return resize(picture, resizing, *out)

    monkeypatch.setattr(squares_module, "resize", counted)
    encoders = Encoders()
    extract([video()], encoders)
    assert len(converted) == FRAMES
    assert sorted(map(RESIZINGS.index, resized)) == [0] * FRAMES + [1] * FRAMES
    assert encoders.sent == [(3 * 8**2 + 3 * 12**2, (0, 1, 2))]  # two squares for three models


def not_finite(model: int, features: NDArray[np.float32]) -> NDArray[np.float32]:
    return features * np.nan if model == 1 and 3 in features else features


def refused(model: int, features: NDArray[np.float32]) -> NDArray[np.float32]:
    if model == 1 and 3 in features:
        raise ValueError("cannot stand this frame")
    return features


@pytest.mark.parametrize(
    ("change", "code"), [(not_finite, "not_finite"), (refused, "encoder_failed")]
)
def test_what_one_model_makes_of_a_video_does_not_concern_the_others(
    change: Features_, code: str, video: Make, folders: list[ArrayFolder]
) -> None:
    paths = [video("a.mp4"), video("b.mp4", first=10)]
    results = extract(paths, Encoders(change), folders=folders)
    failed = [result for result in results if result.failure]
    assert [(f.video, f.model, f.failure and f.failure.code) for f in failed] == [
        (paths[0], "second", code)
    ]
    assert failed[0].failure is not None
    assert failed[0].failure.model == "second"
    assert [len(folder.done()) for folder in folders] == [2, 1, 2]


def test_a_video_that_cannot_be_opened_fails_for_every_model() -> None:
    results = extract(["/nowhere.mp4"])
    assert [(r.model, r.failure and r.failure.code) for r in results] == [
        (name, "not_found") for name in NAMES
    ]


def test_only_the_models_that_lack_a_video_encode_it(
    video: Make, folders: list[ArrayFolder]
) -> None:
    paths = [video("a.mp4"), video("b.mp4"), video("c.mp4")]
    encoders = Encoders()
    results = extract(paths, encoders, folders=folders, lacking=[[1], [0, 2], [0, 1, 2]])
    assert [result.model for result in results] == ["second", "first", "third", *NAMES]
    small, large = 3 * 8**2, 3 * 12**2
    assert encoders.sent == [(large, (1,)), (small, (0, 2)), (small + large, (0, 1, 2))]
    assert [len(folder.done()) for folder in folders] == [2, 2, 2]


def test_a_retried_task_extracts_only_for_models_without_the_video(
    video: Make, folders: list[ArrayFolder]
) -> None:
    path = video()
    extract([path], folders=folders, lacking=[[0, 2]])  # then its process dies
    encoders, attempts = Encoders(), Attempts(crashes=1)
    results = extract([path], encoders, attempts, folders)
    assert [(r.model, r.frames) for r in results] == [(name, FRAMES) for name in NAMES]
    assert [models for _, models in encoders.sent] == [(1,)]
    assert attempts.ended == [3]


def test_a_video_is_given_up_only_for_models_that_have_not_saved_it(
    video: Make, folders: list[ArrayFolder]
) -> None:
    path = video()
    extract([path], folders=folders, lacking=[[0]])
    results = extract([path], None, Attempts(crashes=3), folders)
    assert [r.failure and r.failure.code for r in results] == [
        None,
        "worker_crashed",
        "worker_crashed",
    ]


def test_a_folder_that_refuses_a_write_does_not_concern_the_others(
    video: Make, folders: list[ArrayFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(rows: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(folders[2], "save", save)
    results = extract([video()], folders=folders)
    assert [r.failure and r.failure.code for r in results] == [None, None, "write_failed"]


def test_each_model_has_its_own_shards(video: Make, tmp_path: Path) -> None:
    shards = [ShardFolder(str(tmp_path / name), dim, {}) for name, dim in zip(NAMES, DIMS)]  # noqa: B905
    for folder in shards:
        folder.prepare()
    extract([video("a.mp4"), video("b.mp4")], folders=shards, lacking=[[0, 1, 2], [1]])
    assert [len(folder.done()) for folder in shards] == [1, 2, 1]
    shapes = {row.name: row.clip.shape for row in iter_features(shards[1])}
    assert [*shapes.values()] == [(FRAMES, DIMS[1])] * 2


def test_losing_all_encoders_stops_the_run(video: Make) -> None:
    def stop(model: int, features: NDArray[np.float32]) -> Any:
        return RunStopped("no encoder is left") if model == 2 else features

    with pytest.raises(RunStopped, match="no encoder is left"):
        extract([video()], Encoders(stop))


class Divided:
    """Segments of a long video, decoded one after the other."""

    def is_long(self, duration_s: float) -> bool:
        return True

    def extract(self, video: str, models: Sequence[int]) -> Any:
        segments = segment_jobs.segments_of(job(), video, 0.2, 2)
        assert len(segments) == 2
        for segment in segments:
            extractor = VideoExtractor(
                segment_jobs.segment_job(job(), segment), Encoders(), UncountedAttempts()
            )
            yield from segment_jobs.in_blocks(
                segment_jobs.extract_segment(extractor, video, models)
            )


def same(some: Extraction | None, others: Extraction | None) -> bool:
    assert some is not None
    assert others is not None
    return all(map(np.array_equal, some, others))


def test_a_long_video_in_segments_has_the_features_of_the_whole_by_each_model(
    tmp_path: Path,
) -> None:
    frames = [numbered_frame(number, 16, 16) for number in range(20)]
    options = {"g": "10", "keyint_min": "10", "sc_threshold": "0"}
    path = str(write_video(tmp_path / "a.mp4", frames, fps=10, codec="libx264", options=options))
    lacking = [[1, 2]]
    whole = extract([path], lacking=lacking)
    divided = VideoExtractor(job(), Encoders(), UncountedAttempts(), Divided())
    results = list(divided.run([path], job().videos([path], lacking=lacking)))
    assert [result.model for result in results] == ["second", "third"]
    for one, other in zip(results, whole, strict=True):
        assert same(one.extraction, other.extraction)


def test_frames_of_a_518_pixel_model_beside_a_224_pixel_one_are_bounded_in_bytes(
    video: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("test_models_together.RESIZINGS", (Resizing(518), Resizing(224)))
    encoders = Encoders()
    assert [result.frames for result in extract([video(count=120)], encoders)] == [120, 120]
    assert {size for size, _ in encoders.sent} == {3 * 518**2 + 3 * 224**2}
    assert 0.8 * WINDOW_BYTES < encoders.most <= WINDOW_BYTES
