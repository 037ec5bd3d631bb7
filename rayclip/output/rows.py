"""The data saved for a video, and the interface of writers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


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


class Row(NamedTuple):
    """An extracted video to be saved.

    Attributes:
        position: its index in the task.
        video: its input path or URL.
        extraction: its arrays.
        predictions: the content of its csv file of predictions, if there are any.
    """

    position: int
    video: str
    extraction: Extraction
    predictions: bytes | None = None


class Work(NamedTuple):
    """The number of videos in a features file, and about how many frames they have."""

    videos: int
    frames: float


class Damage(NamedTuple):
    """A damaged file of a folder, and what is wrong with it."""

    file: str
    reason: str


StoredVideo = tuple[str, NDArray[Any], NDArray[Any], float]
"""A saved video: its name, features, timestamps in ms and frame rate."""


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

    @property
    def max_bytes(self) -> int | None:
        """Maximum bytes of one video's float32 features; None if there is no limit."""
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
