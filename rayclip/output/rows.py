"""The data saved for a video, and the interface of writers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rayclip.model.zeroshot import Prediction

if TYPE_CHECKING:
    import pyarrow as pa


class Extraction(NamedTuple):
    """The features of one video.

    Attributes:
        clip: float32 ``[T, D]``; for a long video this may be a ``np.memmap``.
        timestamps_ms: float64 ``[T]``, in ms from the container's start.
        fps: the video's own average frame rate.
    """

    clip: NDArray[np.float32]
    timestamps_ms: NDArray[np.float64]
    fps: float


Predictions = Sequence[Sequence[Prediction]]
"""The best texts for each frame of a video."""


class Row(NamedTuple):
    """An extracted video to be saved.

    Attributes:
        video: its input path or URL.
        extraction: its arrays.
        predictions: the best texts for each frame; None without ``show_pred``.
        columns: one row with further columns; None if there are none. All videos of a task have
            the same ones.
    """

    video: str
    extraction: Extraction
    predictions: Predictions | None = None
    columns: pa.Table | None = None


class Work(NamedTuple):
    """The number of videos in a features file, and about how many frames they have."""

    videos: int
    frames: float


class Damage(NamedTuple):
    """A damaged file of a folder, and what is wrong with it."""

    file: str
    reason: str


class StoredVideo(NamedTuple):
    """A saved video.

    Attributes:
        name: its name in the folder: the path of its files without their endings, or the input.
        clip: float32 or float16 ``[T, D]``, as saved. A large array may be a read-only
            ``np.memmap``: read it with :func:`~rayclip.output.spool.slices`.
        timestamps_ms: float64 ``[T]``, in ms from the container's start.
        fps: the video's own average frame rate; NaN if it is unknown.
        source: the input path or URL; None if the folder does not say it.
        columns: one row with the other columns of the list of videos; None if none are saved.
    """

    name: str
    clip: NDArray[Any]
    timestamps_ms: NDArray[np.float64]
    fps: float
    source: str | None = None
    columns: pa.RecordBatch | None = None


class ScannedVideo(NamedTuple):
    """A saved video whose features are read once, in blocks, and whose times only if needed.

    Attributes:
        name: see :class:`StoredVideo`.
        source: the input path or URL; None if the folder does not say it.
        blocks: float32 or float16 ``[n, D]``, in order. A block is overwritten by the next.
            Iterating may raise :class:`~rayclip.output.video_files.DamagedFile`.
        timestamps_ms: reads float64 ``[T]``, in ms from the container's start; may raise the same.
    """

    name: str
    source: str | None
    blocks: Iterator[NDArray[Any]]
    timestamps_ms: Callable[[], NDArray[np.float64]]


class Writer(Protocol):
    """Saves the videos of one task."""

    @property
    def buffer_bytes(self) -> int:
        """Maximum bytes of features to buffer before videos are saved together."""
        ...

    @property
    def buffer_s(self) -> float:
        """Maximum time in seconds to buffer them."""
        ...

    def saved_before(self, video: str) -> int | None:
        """Return the frames of a video that an earlier attempt at this task saved; else None."""
        ...

    def save(self, rows: Sequence[Row]) -> None:
        """Save videos, all or none.

        Raises:
            RunStopped: the folder cannot be written; the message says why and what to do.
            Exception: any error of the storage that concerns only these videos.
        """
        ...
