"""The per-video step: videos in, results out, in order, whatever goes wrong with one of them."""

import errno
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.spec import AbstractFileSystem
from numpy.typing import NDArray
from video_factories import MAX_NUMBERS, numbered_frame, numbered_frames, remux, write_video

import rayclip.actors.decoder
from rayclip.actors import pending_video
from rayclip.actors.decoder import WINDOW_BYTES, VideoExtractor
from rayclip.actors.flow_control import CHUNK_BYTES, FRAME_BYTES
from rayclip.actors.job import (
    ExtractionJob,
    FeatureBlocks,
    ModelJob,
    SegmentFailed,
    TaskVideo,
    UncountedAttempts,
)
from rayclip.actors.messages import Frame
from rayclip.errors import RunStopped
from rayclip.io import retry
from rayclip.io.crash_log import Cause, Death
from rayclip.io.retry import RetryPolicy
from rayclip.media import source
from rayclip.media.frame_choice import FrameChoice, evenly_spaced
from rayclip.media.frames import FrameSelection, iter_frames, open_selected
from rayclip.model.preprocess import Resizing
from rayclip.output.array_folder import ArrayFolder
from rayclip.output.finished import iter_features
from rayclip.output.folder import FeatureFolder
from rayclip.output.rows import Extraction
from rayclip.output.shards import ShardFolder
from rayclip.report.results import VideoResult

N_PX = 8
DIM = 4
CHUNK_FRAMES = CHUNK_BYTES // FRAME_BYTES  # of these small frames
WINDOW_FRAMES = WINDOW_BYTES // FRAME_BYTES

Make = Callable[..., str]


class Chunk:
    """Frames in flight: their features are computed when ``result`` is called."""

    def __init__(self, encoders: "Encoders", frames: NDArray[np.uint8]) -> None:
        self._encoders = encoders
        self._frames: NDArray[np.uint8] | None = frames
        self.size = len(frames)
        self.is_done = encoders.at_once
        self.is_ended = False

    def done(self) -> bool:
        return self.is_done

    def end(self) -> None:
        if not self.is_ended:
            self._encoders.in_flight -= self.size
        self.is_done = self.is_ended = True

    def result(self) -> list[NDArray[np.float32] | Exception]:
        self.end()
        self._encoders.sent_before_results.append(len(self._encoders.chunks))
        frames, self._frames = self._frames, None
        assert frames is not None, "each chunk is waited for once"
        return [self._encoders.features(frames)]


class Encoders:
    """An encoder in this process that records its calls.

    Attributes:
        at_once: whether features are ready as soon as frames are sent.
        done_first: index of the chunk that is done first among those waited for; 0 is the oldest.
        features: from uint8 ``[n, N_PX, N_PX, 3]`` to float32 ``[n, DIM]``.
        chunks: the sizes of all chunks that were sent.
        in_flight: frames that were sent and are not back.
        levels: ``in_flight`` just after each chunk was sent.
        sent_before_results: how many chunks were sent when the features of each were taken.
    """

    def __init__(
        self,
        features: Callable[[NDArray[np.uint8]], NDArray[np.float32]] | None = None,
        at_once: bool = True,
        done_first: int = 0,
    ) -> None:
        self.features = features or numbers_as_features
        self.at_once = at_once
        self.done_first = done_first
        self.chunks: list[int] = []
        self.in_flight = 0
        self.levels: list[int] = []
        self.sent_before_results: list[int] = []

    def submit(self, frames: list[Frame], models: Sequence[int]) -> Chunk:
        assert {(frame.dtype.name, frame.shape) for frame in frames} == {("uint8", (N_PX, N_PX, 3))}
        self.chunks.append(len(frames))
        self.in_flight += len(frames)
        self.levels.append(self.in_flight)
        return Chunk(self, np.stack(frames))

    def wait(self, pending: Sequence[Chunk]) -> Sequence[Chunk]:
        done = [chunk for chunk in pending if chunk.is_done] or [pending[self.done_first]]
        for chunk in done:
            chunk.end()
        return done


def numbers_as_features(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the number in each frame of ``video_factories``, ``DIM`` times."""
    numbers = np.round(frames.mean(axis=(1, 2, 3)) / 8) - 1
    return np.repeat(numbers[:, None], DIM, axis=1).astype(np.float32)


def failing_on(
    number: int, failure: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return features that fail for every chunk with this frame."""

    def features(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        values = numbers_as_features(frames)
        return failure(values) if number in values else values

    return features


class Attempts:
    """A task whose videos crashed this often before; records its calls."""

    def __init__(self, crashes: Mapping[int, int] | None = None, is_retry: bool = False) -> None:
        self.is_retry = is_retry
        self._crashes = crashes or {}
        self.log: list[str] = []

    def begin(self, position: int, video: str) -> list[Death]:
        self.log.append(f"begin {position}")
        crash = Death(Cause.CRASH, "Segmentation fault", (position,))
        return [crash] * self._crashes.get(position, 0)

    def extracted(self, position: int) -> None:
        self.log.append(f"extracted {position}")

    def end(self, position: int, results: Sequence[VideoResult]) -> None:
        (result,) = results
        self.log.append(f"end {position}: {result.frames} frames")


def job(
    folder: FeatureFolder | None = None,
    fps: Fraction | None = None,
    max_attempts: int = 3,
    folder_of_inputs: str = "/",
    total: int | None = None,
    choice: FrameChoice | None = None,
) -> ExtractionJob:
    choice = choice or FrameChoice(fps, total)
    models = (ModelJob(Resizing(N_PX), folder),)
    return ExtractionJob(models, choice, "stem", max_attempts, folder_of_inputs, {})


def extract(
    videos: Sequence[str],
    encoders: Encoders | None = None,
    attempts: Attempts | UncountedAttempts | None = None,
    **asked: object,
) -> list[VideoResult]:
    extractor = VideoExtractor(
        job(**asked),  # type: ignore[arg-type]
        encoders or Encoders(),
        attempts or UncountedAttempts(),
    )
    return list(run(extractor, videos))


def run(
    extractor: VideoExtractor, names: Sequence[str], extra_columns: pa.Table | None = None
) -> Iterator[VideoResult]:
    return extractor.run(names, job().videos(names, extra_columns))


def row_of(folder: ShardFolder) -> dict[str, list[int]]:
    """What is in the shards of a folder: the numbers of the frames of each video."""
    tables = [pq.read_table(path) for path in sorted(Path(folder.url).glob("*.parquet"))]
    rows = [row for table in tables for row in table.to_pylist()]
    assert len({row["video"] for row in rows}) == len(rows), "a video is there twice"
    return {Path(row["video"]).stem: [int(f[0]) for f in row["clip"]] for row in rows}


def numbers_of(result: VideoResult) -> list[int]:
    assert result.extraction is not None, result.failure
    return [int(number) for number in result.extraction.clip[:, 0]]


def code_of(result: VideoResult) -> tuple[str, str]:
    assert result.failure is not None
    return result.failure.stage, result.failure.code


@pytest.fixture
def video(tmp_path: Path) -> Make:
    """Return a function that writes a video with this many numbered frames."""

    def make(name: str, count: int = 3, first: int = 0) -> str:
        frames = [numbered_frame(first + number, 16, 16) for number in range(count)]
        return str(write_video(tmp_path / name, frames, fps=10))

    return make


@pytest.fixture
def folder(tmp_path: Path) -> ArrayFolder:
    folder = ArrayFolder(str(tmp_path / "out"), DIM, {})
    folder.prepare()
    return folder


# ---- results ----


def test_a_result_has_features_times_and_frame_rate(video: Make) -> None:
    path = video("a.mp4", 4)
    (result,) = extract([path])
    assert (result.video, result.frames, result.failure) == (path, 4, None)
    assert result.extraction is not None
    np.testing.assert_array_equal(result.extraction.clip, np.arange(4.0)[:, None] * np.ones(DIM))
    np.testing.assert_array_equal(result.extraction.timestamps_ms, [0.0, 100.0, 200.0, 300.0])
    assert result.extraction.fps == 10.0


@pytest.mark.parametrize("at_once", [True, False], ids=["quick-encoder", "slow-encoder"])
def test_results_come_in_the_order_of_the_videos(video: Make, at_once: bool) -> None:
    paths = [video(f"{number}.mp4", 1 + number, first=number) for number in range(5)]
    results = extract(paths, Encoders(at_once=at_once))
    assert [result.video for result in results] == paths
    assert [numbers_of(result) for result in results] == [
        list(range(number, 2 * number + 1)) for number in range(5)
    ]


def test_no_videos_give_no_results() -> None:
    assert extract([]) == []


@pytest.mark.parametrize("count", [CHUNK_FRAMES - 1, CHUNK_FRAMES, CHUNK_FRAMES + 1, 150])
def test_features_of_many_chunks_are_joined_in_order(video: Make, count: int) -> None:
    encoders = Encoders()
    (result,) = extract([video("a.mp4", count)], encoders)
    assert numbers_of(result) == [number % 31 for number in range(count)]
    assert encoders.chunks[:-1] == [CHUNK_FRAMES] * ((count - 1) // CHUNK_FRAMES)
    assert sum(encoders.chunks) == count


def test_only_selected_frames_are_encoded(video: Make) -> None:
    encoders = Encoders()
    (result,) = extract([video("a.mp4", 10)], encoders, fps=Fraction(5))
    assert (numbers_of(result), encoders.chunks) == ([0, 2, 4, 6, 8], [5])


def test_a_total_of_frames_is_met_if_a_packet_holds_no_frame(video: Make, tmp_path: Path) -> None:
    cut_short = remux(
        Path(video("whole.mp4", count=12)),
        tmp_path / "damaged.mp4",
        lambda number, data: data[:12] if number == 7 else data,
    )
    native = extract([str(cut_short)])[0].extraction
    assert native is not None
    (result,) = extract([str(cut_short)], total=4)
    assert result.extraction is not None
    assert len(native.timestamps_ms) == 11
    chosen = native.timestamps_ms[evenly_spaced(11, 4)].tolist()
    assert result.extraction.timestamps_ms.tolist() == chosen
    assert [ms for ms, _ in iter_frames(cut_short, extraction_total=4)] == chosen


def test_a_repeated_frame_is_encoded_once_and_repeated_in_the_features(video: Make) -> None:
    encoders = Encoders()
    (result,) = extract([video("a.mp4", 2)], encoders, fps=Fraction(30))
    assert (numbers_of(result), encoders.chunks) == ([0, 0, 0, 1, 1, 1], [2])
    assert result.frames == 6
    assert result.extraction is not None
    assert len(result.extraction.timestamps_ms) == 6


def test_frames_are_resized_to_the_square_of_the_model(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", numbered_frames(2, 37, 21))
    (result,) = extract([str(path)])  # the encoder here refuses every other shape
    assert numbers_of(result) == [0, 1]


def test_decoding_runs_ahead_of_the_features_of_the_last_video(video: Make) -> None:
    encoders = Encoders(at_once=False)
    paths = [video("a.mp4", 2), video("b.mp4", 3), video("c.mp4", 4)]
    next(run(VideoExtractor(job(), encoders, UncountedAttempts()), paths))
    assert encoders.chunks == [2, 3, 4]


def test_a_result_is_yielded_as_soon_as_its_features_are_back(video: Make) -> None:
    encoders = Encoders(at_once=True)
    paths = [video("a.mp4", 2), video("b.mp4", 3)]
    next(run(VideoExtractor(job(), encoders, UncountedAttempts()), paths))
    assert encoders.chunks == [2]


def test_relative_paths_are_resolved_in_the_folder_of_the_command(
    video: Make, tmp_path: Path
) -> None:
    video("a.mp4", 2)
    (result,) = extract(["a.mp4"], folder_of_inputs=str(tmp_path))
    assert (result.video, result.frames) == ("a.mp4", 2)


def test_an_encoded_video_has_the_features_of_its_file(video: Make) -> None:
    content = Path(video("a.mp4", 4)).read_bytes()
    videos = [
        TaskVideo(0, "row 0", [0], content=io.BytesIO(content)),
        TaskVideo(1, "row 1", [0], content=io.BytesIO(b"text")),
    ]
    good, bad = VideoExtractor(job(), Encoders(), UncountedAttempts()).run(["task"], videos)
    assert (good.video, numbers_of(good)) == ("row 0", [0, 1, 2, 3])
    assert code_of(bad)[0] == "open"


# ---- files ----


def test_with_a_folder_features_go_to_files_and_the_result_stays_small(
    video: Make, folder: ArrayFolder, tmp_path: Path
) -> None:
    path = video("a.mp4", 3)
    assert extract([path], folder=folder) == [VideoResult(path, 3)]
    assert folder.committed_frames("a") == 3
    assert np.load(tmp_path / "out" / "a_clip.npy")[:, 0].tolist() == [0, 1, 2]


def test_each_video_is_committed_before_its_result_is_yielded(
    video: Make, folder: ArrayFolder
) -> None:
    paths = [video("a.mp4"), video("b.mp4")]
    for result in run(VideoExtractor(job(folder), Encoders(), UncountedAttempts()), paths):
        assert folder.committed_frames(Path(result.video).stem) == 3


def test_features_that_cannot_be_written_are_a_failure_of_that_video(
    video: Make, folder: ArrayFolder, tmp_path: Path
) -> None:
    (tmp_path / "out" / "b_clip.npy").mkdir()
    results = extract([video("a.mp4"), video("b.mp4"), video("c.mp4")], folder=folder)
    assert [result.frames for result in results] == [3, 0, 3]
    assert code_of(results[1]) == ("write", "write_failed")


# ---- bad videos and bad features ----


@pytest.mark.parametrize("at_once", [True, False], ids=["quick-encoder", "slow-encoder"])
def test_a_bad_video_among_good_ones_is_a_result(
    video: Make, tmp_path: Path, at_once: bool
) -> None:
    (tmp_path / "text.mp4").write_text("this is no video")
    good, other = video("a.mp4", 2), video("b.mp4", 3)
    results = extract(
        [good, str(tmp_path / "nowhere.mp4"), str(tmp_path / "text.mp4"), other],
        Encoders(at_once=at_once),
    )
    assert [result.frames for result in results] == [2, 0, 0, 3]
    assert [code_of(result) for result in results[1:3]] == [
        ("open", "not_found"),
        ("open", "not_a_video"),
    ]


def out_of_order(values: NDArray[np.float32]) -> NDArray[np.float32]:
    raise ValueError("the encoder is out of order")


def test_an_encoder_that_fails_is_a_failure_of_stage_encode(video: Make) -> None:
    paths = [video("a.mp4"), video("b.mp4", first=10), video("c.mp4", first=20)]
    results = extract(paths, Encoders(failing_on(10, out_of_order)))
    assert [result.frames for result in results] == [3, 0, 3]
    assert code_of(results[1]) == ("encode", "encoder_failed")
    assert results[1].failure is not None
    assert "the encoder is out of order" in results[1].failure.message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_never_written(
    video: Make, folder: ArrayFolder, tmp_path: Path, value: float
) -> None:
    def spoilt(values: NDArray[np.float32]) -> NDArray[np.float32]:
        values[-1, -1] = value
        return values

    paths = [video("a.mp4"), video("b.mp4", first=10)]
    results = extract(paths, Encoders(failing_on(10, spoilt)), folder=folder)
    assert code_of(results[1]) == ("encode", "not_finite")
    assert not list((tmp_path / "out").glob("b_*"))
    assert folder.committed_frames("a") == 3


@pytest.mark.parametrize(
    ("value", "dtype", "is_saved"),
    [
        (65504.0, "float16", True),
        (65519.0, "float16", True),  # rounded to the largest there is
        (65520.0, "float16", False),
        (-1e6, "float16", False),
        (1e30, "float32", True),
    ],
)
def test_features_out_of_range_of_the_saved_dtype_are_a_failure(
    video: Make, folder: ArrayFolder, value: float, dtype: str, is_saved: bool
) -> None:
    encoders = Encoders(lambda frames: np.full((len(frames), DIM), value, np.float32))
    extractor = VideoExtractor(
        replace(job(folder), feature_dtype=dtype), encoders, UncountedAttempts()
    )
    (result,) = run(extractor, [video("a.mp4")])
    if is_saved:
        assert result.failure is None
    else:
        assert code_of(result) == ("encode", "not_finite")
        assert result.failure is not None
        assert "float16" in result.failure.message
        assert not list(Path(folder.url).glob("*_clip.npy"))


def test_one_bad_chunk_fails_its_whole_video(video: Make) -> None:
    long = video("a.mp4", CHUNK_FRAMES + 3)

    def features(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(frames) == 3:
            raise ValueError("only the second one")
        return numbers_as_features(frames)

    (result,) = extract([long], Encoders(features))
    assert code_of(result) == ("encode", "encoder_failed")


# ---- a run that has to stop ----


def stopped(values: NDArray[np.float32]) -> NDArray[np.float32]:
    raise RunStopped("no encoder is left")


def test_losing_all_encoders_stops_the_run_at_a_result(video: Make) -> None:
    with pytest.raises(RunStopped, match="no encoder is left"):
        extract([video("a.mp4")], Encoders(failing_on(0, stopped)))


def test_losing_all_encoders_stops_the_run_while_frames_are_sent(video: Make) -> None:
    long = video("a.mp4", WINDOW_FRAMES + CHUNK_FRAMES)
    encoders = Encoders(failing_on(0, stopped), at_once=False)
    with pytest.raises(RunStopped, match="no encoder is left"):
        extract([long], encoders)
    assert sum(encoders.chunks) <= WINDOW_FRAMES


class ClosedEncoders(Encoders):
    def submit(self, frames: list[Frame], models: Sequence[int]) -> Chunk:
        raise RunStopped("no encoder is left")


def test_losing_all_encoders_stops_the_run_at_a_submit(video: Make) -> None:
    with pytest.raises(RunStopped, match="no encoder is left"):
        extract([video("a.mp4")], ClosedEncoders())


def test_videos_finished_before_the_stop_are_yielded(video: Make, folder: ArrayFolder) -> None:
    paths = [video("a.mp4"), video("b.mp4", first=10)]
    results = run(
        VideoExtractor(job(folder), Encoders(failing_on(10, stopped)), UncountedAttempts()), paths
    )
    assert next(results).frames == 3
    with pytest.raises(RunStopped):
        next(results)
    assert (folder.committed_frames("a"), folder.committed_frames("b")) == (3, None)


# ---- storages that fail ----


class InvalidAccessKeyId(Exception):
    """As botocore tells it."""

    response: ClassVar[dict[str, dict[str, str]]] = {"Error": {"Code": "InvalidAccessKeyId"}}


class Unreliable(AbstractFileSystem):
    """A storage whose files break off.

    Attributes:
        breaks: for each time that a file is opened, the byte after which it fails, and how; then no
            more.
        opened: how often a file was.
    """

    protocol = "unreliable"
    breaks: ClassVar[list[tuple[int, Exception]]] = []
    opened = 0

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        Unreliable.opened += 1
        content = Path(path).read_bytes()
        at, error = self.breaks.pop(0) if self.breaks else (len(content) + 1, None)

        class File(io.BytesIO):
            def seekable(self) -> bool:
                return False

            def read(self, size: int | None = -1) -> bytes:
                if error is not None and self.tell() >= at:
                    raise error
                return super().read(size)

        return File(content)


@pytest.fixture
def unreliable(monkeypatch: pytest.MonkeyPatch) -> type[Unreliable]:
    fsspec.register_implementation("unreliable", Unreliable, clobber=True)
    monkeypatch.setattr(retry, "STORAGE", RetryPolicy(3, 60, first_pause_s=0.001))
    monkeypatch.setattr(retry, "RESTART", RetryPolicy(3, 60, first_pause_s=0.001))
    Unreliable.breaks, Unreliable.opened = [], 0
    return Unreliable


@pytest.fixture
def stream(tmp_path: Path) -> str:
    """Return a video whose storage can only be read from its beginning to its end."""
    frames = [numbered_frame(number, 64, 64) for number in range(200)]
    path = write_video(tmp_path / "a.mkv", frames, codec="rawvideo")
    assert path.stat().st_size > 1_000_000
    return f"unreliable://{path}"


@pytest.mark.parametrize("at_once", [True, False], ids=["quick-encoder", "slow-encoder"])
def test_a_video_whose_source_breaks_off_is_restarted(
    stream: str, unreliable: type[Unreliable], at_once: bool
) -> None:
    unreliable.breaks = [(900_000, ConnectionResetError("gone")), (700_000, TimeoutError())]
    encoders = Encoders(at_once=at_once)
    (result,) = extract([stream], encoders)
    assert numbers_of(result) == [number % 31 for number in range(200)]
    assert result.extraction is not None
    assert len(result.extraction.timestamps_ms) == 200
    assert unreliable.opened == 3
    assert sum(encoders.chunks) > 200, "nothing had been sent when the source broke off"


def test_a_video_whose_source_always_breaks_off_is_a_failure_of_stage_read(
    stream: str, unreliable: type[Unreliable]
) -> None:
    unreliable.breaks = [(900_000, ConnectionResetError("gone"))] * 9
    (result,) = extract([stream])
    assert code_of(result) == ("read", "read_failed")
    assert result.failure is not None
    assert "tried 3 times" in result.failure.message
    assert unreliable.opened == 3


def test_a_video_without_permission_is_not_restarted(
    stream: str, unreliable: type[Unreliable]
) -> None:
    unreliable.breaks = [(900_000, PermissionError(errno.EACCES, "not yours"))] * 9
    (result,) = extract([stream])
    assert code_of(result) == ("read", "access_denied")
    assert unreliable.opened == 1


def test_a_local_disk_that_fails_is_reported_at_once(
    video: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = video("a.mp4", 40)
    opened: list[str] = []

    class Disk(io.FileIO):
        def __init__(self, name: str, *_: object, **__: object) -> None:
            opened.append(name)
            super().__init__(name)

        def read(self, size: int = -1) -> bytes:
            if self.tell() > 0:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(size)

    monkeypatch.setattr(source, "open", Disk, raising=False)
    (result,) = extract([path])
    assert code_of(result) == ("read", "read_failed")
    assert opened == [path]


def test_refused_credentials_stop_the_run_after_earlier_videos_are_finished(
    video: Make, folder: ArrayFolder, stream: str, unreliable: type[Unreliable]
) -> None:
    unreliable.breaks = [(0, InvalidAccessKeyId("unknown key"))] * 9
    paths = [video("first.mp4"), stream, video("never.mp4", first=20)]
    encoders = Encoders(at_once=False)
    results = run(VideoExtractor(job(folder), encoders, UncountedAttempts()), paths)
    assert next(results).frames == 3
    with pytest.raises(RunStopped, match=r"unreliable://.*refused.*unknown key.*renew them"):
        next(results)
    assert encoders.chunks == [3]
    assert folder.committed_frames("first") == 3


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_a_folder_that_refuses_all_writes_stops_the_run(
    video: Make,
    folder: ArrayFolder,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    tmp_path: Path,
) -> None:
    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    paths = [video("a.mp4"), video("b.mp4"), video("c.mp4")]
    results = run(VideoExtractor(job(folder), Encoders(), UncountedAttempts()), paths)
    assert next(results).frames == 3
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunStopped, match="rerun the same command"):
        next(results)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a_clip.npy",
        "a_fps.npy",
        "a_timestamps_ms.npy",
    ]


# ---- attempts ----


def test_every_video_begins_and_ends_at_its_position_in_the_task(video: Make) -> None:
    attempts = Attempts()
    extract([video("a.mp4", 1), "/nowhere.mp4", video("b.mp4", 2)], attempts=attempts)
    assert attempts.log == [
        "begin 0",
        "end 0: 1 frames",
        "begin 1",
        "end 1: 0 frames",
        "begin 2",
        "end 2: 2 frames",
    ]


def test_a_retried_task_does_not_decode_committed_videos_again(
    folder: ArrayFolder,
) -> None:
    gone = "no/longer/there.mp4"
    folder.commit("there", Extraction(np.zeros((7, DIM), np.float32), np.zeros(7), 25.0))
    encoders, attempts = Encoders(), Attempts({0: 1}, is_retry=True)
    assert extract([gone], encoders, attempts, folder=folder) == [VideoResult(gone, 7)]
    assert encoders.chunks == []
    assert attempts.log == ["begin 0", "end 0: 7 frames"]


def test_a_video_that_was_committed_in_its_last_attempt_is_a_success(folder: ArrayFolder) -> None:
    folder.commit("a", Extraction(np.zeros((7, DIM), np.float32), np.zeros(7), 25.0))
    attempts = Attempts({0: 8}, is_retry=True)
    results = extract(["a.mp4"], attempts=attempts, folder=folder, max_attempts=3)
    assert results == [VideoResult("a.mp4", 7)]


def test_a_first_attempt_does_not_trust_existing_files(video: Make, folder: ArrayFolder) -> None:
    folder.commit("a", Extraction(np.zeros((7, DIM), np.float32), np.zeros(7), 25.0))
    path = video("a.mp4", 2)
    assert extract([path], folder=folder) == [VideoResult(path, 2)]


@pytest.mark.parametrize("crashes", [0, 1, 2])
def test_a_video_is_retried_up_to_max_attempts(video: Make, crashes: int) -> None:
    attempts = Attempts({0: crashes}, is_retry=True)
    (result,) = extract([video("a.mp4", 2)], attempts=attempts, max_attempts=3)
    assert numbers_of(result) == [0, 1]


def test_a_video_is_given_up_undecoded_after_max_attempts(video: Make) -> None:
    encoders, attempts = Encoders(), Attempts({0: 3}, is_retry=True)
    (result,) = extract([video("a.mp4")], encoders, attempts, max_attempts=3)
    assert code_of(result) == ("decode", "worker_crashed")
    assert result.failure is not None
    assert result.failure.attempts == 3
    assert encoders.chunks == []


def test_a_failure_says_how_often_the_video_was_tried() -> None:
    (result,) = extract(["/nowhere.mp4"], attempts=Attempts({0: 1}, is_retry=True))
    assert result.failure is not None
    assert (result.failure.video, result.failure.attempts) == ("/nowhere.mp4", 2)


def test_a_retried_task_extracts_only_suspects_by_themselves(video: Make) -> None:
    paths = [video(f"{n}.mp4", n) for n in range(1, 6)]
    encoders, attempts = Encoders(at_once=False), Attempts({2: 1}, is_retry=True)
    extract(paths, encoders, attempts)
    assert encoders.levels == [1, 1 + 2, 3, 4, 4 + 5]
    assert attempts.log == [
        "begin 0",
        "begin 1",
        "begin 2",
        "end 0: 1 frames",
        "end 1: 2 frames",
        "end 2: 3 frames",
        "begin 3",
        "begin 4",
        "end 3: 4 frames",
        "end 4: 5 frames",
    ]


def test_results_of_a_retried_task_are_in_order_if_some_are_saved_already(
    video: Make, folder: ArrayFolder
) -> None:
    paths = [video("a.mp4", 1), video("b.mp4", 2), video("c.mp4", 3)]
    folder.commit("b", Extraction(np.zeros((7, DIM), np.float32), np.zeros(7), 25.0))
    attempts = Attempts(is_retry=True)
    results = extract(paths, Encoders(at_once=False), attempts, folder=folder)
    assert [result.frames for result in results] == [1, 7, 3]


def test_a_video_that_is_given_up_keeps_its_place(video: Make) -> None:
    paths = [video("a.mp4", 1), video("b.mp4"), video("c.mp4", 2)]
    attempts = Attempts({1: 3}, is_retry=True)
    results = extract(paths, Encoders(at_once=False), attempts, max_attempts=3)
    assert [(result.video, result.frames) for result in results] == list(
        zip(paths, [1, 0, 2], strict=True)
    )


# ---- shards ----


@pytest.fixture
def shards(tmp_path: Path) -> ShardFolder:
    folder = ShardFolder(str(tmp_path / "out"), DIM, {})
    folder.prepare()
    return folder


def test_a_task_writes_a_shard_without_failed_videos(video: Make, shards: ShardFolder) -> None:
    paths = [video("a.mp4", 2), "/nowhere.mp4", video("b.mp4", 3, first=10)]
    results = extract(paths, folder=shards)
    assert [result.frames for result in results] == [2, 0, 3]
    assert [result.extraction for result in results] == [None] * 3
    assert row_of(shards) == {"a": [0, 1], "b": [10, 11, 12]}
    assert len(list(Path(shards.url).glob("*.parquet"))) == 1


def test_a_retried_task_does_not_extract_saved_rows_again(
    video: Make, shards: ShardFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [video("a.mp4", 1), video("b.mp4", 2), video("c.mp4", 3)]
    monkeypatch.setattr("rayclip.output.shards.ShardWriter.buffer_s", 0.0)
    first = run(VideoExtractor(job(shards), Encoders(), UncountedAttempts()), paths)
    assert [next(first).frames, next(first).frames] == [1, 2]
    first.close()  # and then its process dies
    encoders = Encoders()
    results = extract(paths, encoders, Attempts({2: 1}, is_retry=True), folder=shards)
    assert [result.frames for result in results] == [1, 2, 3]
    assert encoders.chunks == [3]
    assert row_of(shards) == {"a": [0], "b": [0, 1], "c": [0, 1, 2]}


def test_buffered_videos_are_saved_before_a_suspect_begins(
    video: Make, shards: ShardFolder
) -> None:
    paths = [video("a.mp4", 1), video("blamed.mp4", 2)]
    attempts = Attempts({1: 1}, is_retry=True)
    results = run(VideoExtractor(job(shards), Encoders(), attempts), paths)
    assert next(results).frames == 1
    assert attempts.log == ["begin 0", "extracted 0", "begin 1", "end 0: 1 frames"]
    assert row_of(shards) == {"a": [0]}


def test_buffered_videos_are_saved_when_all_encoders_are_lost(
    video: Make, shards: ShardFolder
) -> None:
    paths = [video("a.mp4"), video("b.mp4", first=10)]
    results = run(
        VideoExtractor(job(shards), Encoders(failing_on(10, stopped)), UncountedAttempts()), paths
    )
    assert next(results).frames == 3
    with pytest.raises(RunStopped):
        next(results)
    assert row_of(shards) == {"a": [0, 1, 2]}


def test_extra_columns_of_the_videos_are_saved(video: Make, shards: ShardFolder) -> None:
    paths = ["/nowhere.mp4", video("b.mp4", 2)]
    extra_columns = pa.table({"label": ["x", "y"]})
    list(run(VideoExtractor(job(shards), Encoders(), UncountedAttempts()), paths, extra_columns))
    (path,) = Path(shards.url).glob("*.parquet")
    assert pq.read_table(path).select(["video", "label"]).to_pylist() == [
        {"video": paths[1], "label": "y"}
    ]


# ---- frames in flight ----


def test_the_frames_of_a_long_video_in_flight_are_bounded(video: Make) -> None:
    encoders = Encoders(at_once=False)
    (result,) = extract([video("a.mp4", 2 * WINDOW_FRAMES)], encoders)
    assert result.frames == 2 * WINDOW_FRAMES
    filling = range(CHUNK_FRAMES, WINDOW_FRAMES, CHUNK_FRAMES)
    assert encoders.levels[: len(filling)] == list(filling)
    assert set(encoders.levels[len(filling) :]) == {WINDOW_FRAMES}


def test_the_frames_of_many_videos_in_flight_are_bounded(video: Make) -> None:
    encoders = Encoders(at_once=False)
    path = video("a.mp4", 100)
    results = extract([path] * 12, encoders)
    assert [result.frames for result in results] == [100] * 12
    assert WINDOW_FRAMES - CHUNK_FRAMES < max(encoders.levels) <= WINDOW_FRAMES


def test_frames_of_518_pixels_in_flight_are_bounded_by_the_same_bytes(video: Make) -> None:
    n_px, sent = 518, []

    class Large(Encoders):
        def submit(self, frames: list[Frame], models: Sequence[int]) -> Chunk:
            sent.append(sum(frame.nbytes for frame in frames))
            assert {frame.shape for frame in frames} == {(n_px, n_px, 3)}
            return super().submit([frame[:N_PX, :N_PX] for frame in frames], models)

    large = replace(job(), models=(ModelJob(Resizing(n_px)),))
    encoders = Large(at_once=False)
    (result,) = run(VideoExtractor(large, encoders, UncountedAttempts()), [video("a.mp4", 120)])
    assert result.frames == 120
    assert 0.9 * CHUNK_BYTES < max(sent) <= CHUNK_BYTES
    assert 0.8 * WINDOW_BYTES < max(encoders.levels) * 3 * n_px * n_px <= WINDOW_BYTES


def test_a_slow_chunk_does_not_block_others(video: Make) -> None:
    encoders = Encoders(at_once=False, done_first=-1)
    (result,) = extract([video("a.mp4", 2 * WINDOW_FRAMES)], encoders)
    assert numbers_of(result) == [number % MAX_NUMBERS for number in range(2 * WINDOW_FRAMES)]
    assert encoders.sent_before_results[0] == 2 * WINDOW_FRAMES // CHUNK_FRAMES
    assert max(encoders.levels) == WINDOW_FRAMES


def test_the_chunks_of_a_video_that_wait_for_a_slow_one_are_bounded(
    video: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_video, "MAX_CHUNKS", 10)
    encoders = Encoders(at_once=False, done_first=-1)
    (result,) = extract([video("a.mp4", 2 * WINDOW_FRAMES)], encoders)
    assert result.frames == 2 * WINDOW_FRAMES
    assert encoders.sent_before_results[:2] == [11, 12]


# ---- long videos ----


class Segments:
    """Yields the features of a video in two blocks, fails after the first, or yields none."""

    def __init__(self, fails: bool = False, is_empty: bool = False) -> None:
        self._fails = fails
        self._is_empty = is_empty

    def is_long(self, duration_s: float) -> bool:
        return duration_s > 0.25

    def extract(self, video: str, models: Sequence[int]) -> FeatureBlocks | None:
        return None if video.endswith("whole.mp4") else self._blocks()

    def _blocks(self) -> FeatureBlocks:
        if self._is_empty:
            return
        yield np.array([0.0, 1.0]), [np.full((2, DIM), 20, np.float32)]
        if self._fails:
            raise SegmentFailed("its worker died")
        yield np.array([2.0]), [np.full((1, DIM), 21, np.float32)]


def test_parts_of_a_video_are_saved_under_their_own_names(video: Make, tmp_path: Path) -> None:
    path, folder = video("a.mp4", count=20), ArrayFolder(str(tmp_path / "out"), DIM, {})
    folder.prepare()
    parts = [f"{path}#t=0.5,0.8", f"{path}#t=1.7", f"{path}#t=0.8,0.5", f"{path}#t=2,3", path]
    results = extract(parts, folder=folder)
    assert [result.frames for result in results] == [3, 3, 0, 0, 20]
    assert code_of(results[2]) == ("open", "empty_range")
    assert code_of(results[3]) == ("decode", "empty_range")
    saved = {
        video.name: (video.clip[:, 0].tolist(), video.timestamps_ms.tolist())
        for video in iter_features(folder)
    }
    assert saved["a_0.5-0.8"] == ([5, 6, 7], [500, 600, 700])
    assert saved["a_1.7-end"] == ([17, 18, 19], [1700, 1800, 1900])
    assert sorted(saved) == ["a", "a_0.5-0.8", "a_1.7-end"]


@pytest.mark.parametrize("choice", [FrameChoice(every=3), FrameChoice(start=0.6)])
def test_a_video_whose_packets_mislead_is_decoded_from_the_beginning(
    video: Make, tmp_path: Path, choice: FrameChoice
) -> None:
    cut_short = remux(
        Path(video("whole.mp4", count=25)),
        tmp_path / "damaged.mp4",
        lambda number, data: data[:12] if number in (9, 15) else data,
    )
    (native,), (result,) = extract([str(cut_short)]), extract([str(cut_short)], choice=choice)
    assert native.extraction is not None
    assert result.extraction is not None
    times = native.extraction.timestamps_ms
    expected = times[::3] if choice.every else times[times >= 600]
    assert len(times) == 23
    assert result.extraction.timestamps_ms.tolist() == expected.tolist()


def test_a_long_video_is_divided_and_a_short_one_is_not(video: Make) -> None:
    paths = [video("long.mp4"), video("short.mp4", count=2)]
    extractor = VideoExtractor(job(), Encoders(), UncountedAttempts(), Segments(fails=False))
    divided, short = run(extractor, paths)
    assert numbers_of(divided) == [20, 20, 21]
    assert divided.extraction is not None
    assert divided.extraction.timestamps_ms.tolist() == [0.0, 1.0, 2.0]
    assert divided.extraction.fps == 10.0
    assert numbers_of(short) == [0, 1]


def test_a_short_video_is_opened_once(video: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    @contextmanager
    def counted(source: str, *rest: Any) -> Iterator[FrameSelection]:
        opened.append(source)
        with open_selected(source, *rest) as wanted:
            yield wanted

    monkeypatch.setattr(rayclip.actors.decoder, "open_selected", counted)
    path = video("short.mp4", count=2)
    list(run(VideoExtractor(job(), Encoders(), UncountedAttempts(), Segments(fails=False)), [path]))
    assert opened == [path]


def test_a_long_video_that_cannot_be_divided_is_decoded_whole(video: Make) -> None:
    extractor = VideoExtractor(job(), Encoders(), UncountedAttempts(), Segments(fails=False))
    (result,) = run(extractor, [video("whole.mp4")])
    assert numbers_of(result) == [0, 1, 2]


def test_a_video_whose_segment_fails_is_decoded_whole(video: Make) -> None:
    extractor = VideoExtractor(job(), Encoders(), UncountedAttempts(), Segments(fails=True))
    (result,) = run(extractor, [video("long.mp4")])
    assert numbers_of(result) == [0, 1, 2]
    assert result.extraction is not None
    assert result.extraction.timestamps_ms.tolist() == [0.0, 100.0, 200.0]
    assert result.extraction.fps == 10.0


def test_a_divided_video_without_selected_frames_gives_its_first_frame(video: Make) -> None:
    extractor = VideoExtractor(
        job(fps=Fraction("0.001")), Encoders(), UncountedAttempts(), Segments(is_empty=True)
    )
    (result,) = run(extractor, [video("long.mp4")])
    assert numbers_of(result) == [0]
