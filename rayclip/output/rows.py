"""What is saved of a video, and what whoever saves it must be able to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Extraction(NamedTuple):
    """What is kept of one video.

    Attributes:
        clip: features, float32 ``[T, D]``; those of a long video may be a ``np.memmap``.
        timestamps_ms: float64 ``[T]``, ms from the container's start.
        fps: the video's own average frame rate.
    """

    clip: NDArray[np.float32]
    timestamps_ms: NDArray[np.float64]
    fps: float


class Row(NamedTuple):
    """A video whose features are made, to be saved.

    Attributes:
        position: in its group.
        video: as it was given.
        extraction: its arrays.
        predictions: the content of a csv file, where there are any.
    """

    position: int
    video: str
    extraction: Extraction
    predictions: bytes | None = None


class Work(NamedTuple):
    """What a file of features holds: videos, and about how many frames."""

    videos: int
    frames: float


class Writer(Protocol):
    """Saves the videos of one group."""

    @property
    def buffer_bytes(self) -> int:
        """Of features, up to which videos may wait to be saved together."""
        ...

    @property
    def buffer_s(self) -> float:
        """Seconds for which they may."""
        ...

    @property
    def max_bytes(self) -> int | None:
        """Of the features, float32, of one video; None for any number."""
        ...

    def saved_before(self, video: str) -> int | None:
        """The frames of a video that an earlier process of this group saved; None without."""
        ...

    def save(self, rows: Sequence[Row]) -> None:
        """Save videos, all or none.

        Raises:
            RunStopped: nothing can be written here: the sentence says why and what to do.
            Exception: what the storage raises, of these videos only.
        """
        ...
