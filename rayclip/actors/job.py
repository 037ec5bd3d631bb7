"""What a decoding task is given: its job, and those who work with it."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rayclip.actors.messages import Frame
from rayclip.actors.pending_video import Pending
from rayclip.inputs.videos import absolute
from rayclip.io.crash_log import Death
from rayclip.media.sampling import FrameChoice
from rayclip.media.segments import WHOLE, Segment
from rayclip.media.source import VideoSource
from rayclip.model.zeroshot import ZeroShot
from rayclip.output.folder import FeatureFolder
from rayclip.report.results import VideoResult


class Encoders(Protocol):
    """Where frames go."""

    def submit(self, frames: list[Frame]) -> Pending:
        """Send a chunk: uint8 ``[n_px, n_px, 3]`` each, at least one."""
        ...

    def wait(self, pending: Sequence[Any]) -> Iterable[Any]:
        """Wait until some of those that ``submit`` gave are done; gives those that are."""
        ...


class Attempts(Protocol):
    """Who remembers, when a worker process dies, which videos of its group it was busy with."""

    @property
    def again(self) -> bool:
        """Whether this group was begun before, by a process that died."""
        ...

    def begin(self, position: int, video: str) -> Sequence[Death]:
        """Note that a video, at this place of the group, is begun; what ended its attempts so
        far."""
        ...

    def made(self, position: int) -> None:
        """Note that a video is no more at work: what was made of it waits to be saved."""
        ...

    def end(self, position: int, result: VideoResult) -> None: ...


class SegmentFailed(Exception):
    """A segment of a video could not be decoded by itself."""


FeatureBlocks = Iterator[tuple[NDArray[np.float64], NDArray[np.float32]]]
"""Timestamps in ms ``[n]`` and features ``[n, D]``, in order."""


class Segments(Protocol):
    """Who decodes the segments of a long video side by side."""

    def is_long(self, duration_s: float) -> bool:
        """Whether a video is worth dividing."""
        ...

    def extract(self, video: str) -> FeatureBlocks | None:
        """The features of a long video; None where it cannot be divided.

        They raise :class:`SegmentFailed` where a segment cannot be had.
        """
        ...


class LocalAttempts:
    """Attempts in the user's own process, which nothing survives to count.

    Attributes:
        busy: the video that was begun last, and when, by ``time.monotonic``.
        done: videos finished.
        failed: videos given up.
        frames: features of the finished ones.
    """

    again = False
    busy: tuple[str, float] | None = None
    done = failed = frames = 0

    def begin(self, position: int, video: str) -> Sequence[Death]:
        self.busy = video, time.monotonic()
        return ()

    def made(self, position: int) -> None:
        pass

    def end(self, position: int, result: VideoResult) -> None:
        self.failed += result.failure is not None
        self.done += result.failure is None
        self.frames += result.frames


@dataclass(frozen=True)
class ExtractionJob:
    """What a decoding task needs to know.

    Attributes:
        n_px: the model's input resolution.
        resize: ``pil`` or ``fast``.
        choice: which frames of each video are wanted.
        naming: how files are called, ``stem`` or ``path``.
        folder: where features are committed; None hands the arrays on.
        max_attempts: how often a video may crash or hang its worker.
        folder_of_inputs: where relative paths begin: workers have working folders of their own.
        storage_options: given to fsspec for inputs.
        reencoded: local folder where videos re-encoded at extraction_fps are kept and read from;
            None decodes the videos themselves.
        zero_shot: predicts texts for each frame; the arrays are then handed on, too.
        segment: what to decode of each video.
        feature_dtype: of the features that are saved: what it cannot hold is a failure.
        encoded: the content of each video by name, if videos are not read from their paths.
    """

    n_px: int
    resize: str
    choice: FrameChoice
    naming: str
    folder: FeatureFolder | None
    max_attempts: int
    folder_of_inputs: str
    storage_options: dict[str, Any] = field(repr=False)
    reencoded: str | None = None
    zero_shot: ZeroShot | None = None
    segment: Segment = WHOLE
    feature_dtype: str = "float32"
    encoded: Mapping[str, bytes] | None = field(default=None, repr=False)

    def source(self, video: str) -> VideoSource:
        """Return where a video is read from."""
        if self.encoded is not None:
            return io.BytesIO(self.encoded[video])
        return absolute(video, self.folder_of_inputs)
