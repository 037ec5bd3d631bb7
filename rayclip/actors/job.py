"""What a decoding task is given: its job, and the interfaces that it works with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import repeat
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rayclip.actors.messages import Frame
from rayclip.actors.pending_video import Pending
from rayclip.errors import VideoError
from rayclip.inputs.videos import absolute, folder_of_inputs
from rayclip.io.crash_log import Death
from rayclip.media.fragments import parse_part
from rayclip.media.frame_choice import FrameChoice
from rayclip.media.image_folder import ImageFolder
from rayclip.media.segments import WHOLE, Segment
from rayclip.media.source import VideoSource
from rayclip.model.models import ModelSpec
from rayclip.model.preprocess import Resizing
from rayclip.model.squares import Squares, squares_of
from rayclip.model.zeroshot import ZeroShot
from rayclip.output.done import is_done
from rayclip.output.folder import FeatureFolder
from rayclip.report.results import VideoResult
from rayclip.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa


class TaskVideo(NamedTuple):
    """A video of a decoding task.

    Attributes:
        position: in the task.
        video: its name.
        models: the numbers of the models that lack it.
        columns: one row with further columns, saved with it if the format has room for them.
        content: its bytes, if it is not read from its name.
        error: why it cannot be extracted, if that is known already.
    """

    position: int
    video: str
    models: Sequence[int]
    columns: pa.Table | None = None
    content: BinaryIO | None = None
    error: VideoError | None = None


class Encoders(Protocol):
    """Encode frames."""

    def submit(self, frames: list[Frame], models: Sequence[int]) -> Pending:
        """Queue a chunk: at least one frame, each with the squares of the models of these
        numbers."""
        ...

    def wait(self, pending: Sequence[Any]) -> Iterable[Any]:
        """Wait until some of these results of ``submit`` are done, and return those."""
        ...


class Attempts(Protocol):
    """Remembers which videos of a task were in progress when a worker process died."""

    @property
    def is_retry(self) -> bool:
        """Whether an earlier process, now dead, began this task."""
        ...

    def begin(self, position: int, video: str) -> Sequence[Death]:
        """Record that the video at this position begins, and return how its earlier attempts
        ended."""
        ...

    def extracted(self, position: int) -> None:
        """Record that a video is no longer in progress; its features wait to be saved."""
        ...

    def end(self, position: int, results: Sequence[VideoResult]) -> None:
        """Record the results of a video, one for each model."""
        ...


class SegmentFailed(Exception):
    """A segment of a video could not be decoded on its own."""


FeatureBlock = tuple[NDArray[np.float64], Sequence[NDArray[np.float32]]]
"""Timestamps in ms ``[n]``, and the features ``[n, D]`` of each model."""
FeatureBlocks = Iterator[FeatureBlock]
"""Blocks in order."""


class Segments(Protocol):
    """Extracts the segments of a long video in parallel."""

    def is_long(self, duration_s: float) -> bool:
        """Whether a video is worth dividing."""
        ...

    def extract(self, video: str, models: Sequence[int]) -> FeatureBlocks | None:
        """Return the features of a long video by these models; None if it cannot be divided.

        The iterator raises :class:`SegmentFailed` if a segment fails.
        """
        ...


class UncountedAttempts:
    """Attempts that nobody counts: those at a segment, whose video is counted as a whole."""

    is_retry = False

    def begin(self, position: int, video: str) -> Sequence[Death]:
        return ()

    def extracted(self, position: int) -> None:
        pass

    def end(self, position: int, results: Sequence[VideoResult]) -> None:
        pass


@dataclass(frozen=True)
class ModelJob:
    """What a decoding task has to do for one model.

    Attributes:
        resizing: how frames become the model's input.
        folder: where features are committed; None passes the arrays on.
        label: names the model in results, if there are several; else it is empty.
        done: hashes of the names of videos in tar files that are done, in ascending order.
    """

    resizing: Resizing
    folder: FeatureFolder | None = None
    label: str = ""
    done: NDArray[np.uint64] | None = field(default=None, repr=False)

    def has(self, video: str) -> bool:
        """Whether a video in a tar file is done."""
        if self.folder is None or self.done is None:
            return False
        return is_done(self.folder.name_of(video), self.done)


@dataclass(frozen=True)
class ExtractionJob:
    """What a decoding task has to do.

    Attributes:
        models: what to do for each model; a model's number is its position here.
        choice: which frames of each video are wanted, unless it names its own range.
        naming: how output files are named, ``stem`` or ``path``.
        max_attempts: how often a video may crash or hang its worker.
        folder_of_inputs: base of relative paths; workers have other working folders.
        storage_options: passed to fsspec for inputs.
        reencoded: local folder for copies of the videos re-encoded at extraction_fps, which are
            decoded instead; None decodes the videos themselves.
        zero_shot: predicts texts for each frame; the arrays are then passed on as well.
        segment: which part of each video to decode.
        feature_dtype: of the saved features; a value out of its range is a failure.
        frames_fps: how many images of a folder are shown in a second, if videos are such folders.
        of_tars: whether the inputs are tar files of videos.
    """

    models: tuple[ModelJob, ...]
    choice: FrameChoice
    naming: str
    max_attempts: int
    folder_of_inputs: str
    storage_options: dict[str, Any] = field(repr=False)
    reencoded: str | None = None
    zero_shot: ZeroShot | None = None
    segment: Segment = WHOLE
    feature_dtype: str = "float32"
    frames_fps: Fraction | None = None
    of_tars: bool = False

    @classmethod
    def of(
        cls,
        settings: Settings,
        specs: Sequence[ModelSpec],
        folders: Sequence[FeatureFolder] = (),
        reencoded: str | None = None,
    ) -> ExtractionJob:
        """Return the job of a run, or of a step of a pipeline.

        Args:
            settings: of the run.
            specs: its models.
            folders: where the features of each are committed; none if they are passed on.
            reencoded: see above.
        """
        return cls(
            models=tuple(
                ModelJob(spec.resizing, folder, spec.model_name if len(specs) > 1 else "")
                for spec, folder in zip(specs, folders or repeat(None))  # noqa: B905
            ),
            choice=settings.frame_choice,
            naming=settings.naming,
            max_attempts=settings.max_attempts,
            folder_of_inputs=folder_of_inputs(settings),
            storage_options=dict(settings.storage_options),
            reencoded=reencoded,
            frames_fps=settings.frames_fps if settings.frames_folders else None,
            # printed features and columns of a pipeline are float32
            feature_dtype=settings.feature_dtype if folders else "float32",
        )

    def videos(
        self,
        names: Iterable[str],
        extra_columns: pa.Table | None = None,
        lacking: Sequence[Sequence[int]] | None = None,
    ) -> Iterator[TaskVideo]:
        """Yield the videos of a task.

        Args:
            names: of the videos.
            extra_columns: further columns of them, a row for each.
            lacking: for each, the numbers of the models that lack it; None if all do.
        """
        for position, name in enumerate(names):
            models = self.numbers if lacking is None else lacking[position]
            columns = None if extra_columns is None else extra_columns.slice(position, 1)
            yield TaskVideo(position, name, models, columns)

    def for_tars(self, done: Sequence[NDArray[np.uint64]]) -> ExtractionJob:
        """Return the same job for tar files of videos.

        Args:
            done: see :class:`ModelJob`, for each model; empty if nothing is saved.
        """
        models = self.models
        if done:
            pairs = zip(models, done, strict=True)
            models = tuple(replace(model, done=hashes) for model, hashes in pairs)
        return replace(self, models=models, of_tars=True)

    @property
    def numbers(self) -> range:
        """The numbers of all models."""
        return range(len(self.models))

    @property
    def folders(self) -> list[FeatureFolder]:
        """Where features are committed; empty if they are passed on."""
        return [model.folder for model in self.models if model.folder is not None]

    def squares(self, models: Sequence[int]) -> Squares:
        """Return how frames become the squares of these models."""
        return squares_of(tuple(self.models[model].resizing for model in models))

    def source(self, video: str) -> VideoSource | ImageFolder:
        """Return what a video is read from."""
        path = absolute(video, self.folder_of_inputs)
        return path if self.frames_fps is None else ImageFolder(path, self.frames_fps)

    def choice_for(self, video: str) -> FrameChoice:
        """Return which frames of a video are wanted."""
        part = parse_part(video)
        return (
            self.choice if part.is_whole else replace(self.choice, start=part.start, end=part.end)
        )
