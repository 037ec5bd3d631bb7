"""The features of a video as they are exported: pooled, normalised, converted; in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rayclip.console import shown
from rayclip.errors import RayclipError
from rayclip.export.options import ExportOptions
from rayclip.output.rows import StoredVideo
from rayclip.output.spool import SLICE, slices

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class ExportedVideo:
    """A video as it is exported.

    Attributes:
        stored: the video as it was saved.
        key: the name of its file or group, which may contain folders.
        options: what is done with its features.
    """

    stored: StoredVideo
    key: str
    options: ExportOptions

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The number of the first saved feature of each exported one, int64 ``[N]``."""
        frames = len(self.stored.clip)
        if self.options.pool is None:
            return np.arange(frames)
        return window_starts(frames, self._window, self.options.stride or frames)

    @property
    def timestamps_ms(self) -> NDArray[np.float64]:
        """The time of the first saved feature of each exported one, float64 ``[N]``, in ms."""
        return self.stored.timestamps_ms[self.starts]

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the exported features, ``(N, D)``."""
        return len(self.starts), self.stored.clip.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.options.dtype or self.stored.clip.dtype)

    @property
    def size(self) -> int:
        """The bytes of the exported features."""
        rows, dim = self.shape
        return rows * dim * self.dtype.itemsize

    @property
    def columns(self) -> pa.RecordBatch | None:
        """One row with the other columns of the list of videos; None if none are saved."""
        return self.stored.columns

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the exported features in order, ``[n, D]``, some megabytes at a time.

        Raises:
            RayclipError: a number does not fit into the dtype.
        """
        clip = self.stored.clip
        for block in slices(clip) if self.options.pool is None else self._pooled():
            rows = _unit(block) if self.options.normalize else block
            with np.errstate(over="ignore"):
                converted = np.ascontiguousarray(rows, self.dtype)
            if self.dtype == np.float16 and not np.isfinite(converted).all():
                raise RayclipError(
                    f"A feature of {shown(self.stored.name)} is beyond what float16 holds: export "
                    "float32."
                )
            yield converted

    def features(self) -> NDArray[Any]:
        """Return all exported features, ``[N, D]``."""
        return np.concatenate(list(self.blocks()))

    @property
    def _window(self) -> int:
        return self.options.window or len(self.stored.clip)

    def _pooled(self) -> Iterator[NDArray[np.float64]]:
        clip = self.stored.clip
        pool = _mean if self.options.pool == "mean" else _max
        at_a_time = max(1, SLICE // (clip.shape[1] * np.float64().nbytes))
        for first in range(0, len(self.starts), at_a_time):
            starts = self.starts[first : first + at_a_time].tolist()
            yield np.stack([pool(clip[start : start + self._window]) for start in starts])


def window_starts(frames: int, window: int, stride: int) -> NDArray[np.int64]:
    """Return where windows start: every ``stride`` features, until one reaches the end.

    The last may be shorter, so that with ``stride <= window`` each feature is in a window.
    """
    beyond_the_first = -(-max(0, frames - window) // stride)
    starts = np.arange(1 + beyond_the_first) * stride
    return starts[starts < frames]


def _mean(rows: NDArray[Any]) -> NDArray[np.float64]:
    total = sum(part.sum(axis=0, dtype=np.float64) for part in slices(rows))
    return np.asarray(total / len(rows))


def _max(rows: NDArray[Any]) -> NDArray[np.float64]:
    largest = np.max([part.max(axis=0) for part in slices(rows)], axis=0)
    return np.asarray(largest, np.float64)


def _unit(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Scale rows to length 1; rows of zeros stay."""
    numbers = rows.astype(np.float64)
    lengths = np.linalg.norm(numbers, axis=1, keepdims=True)
    scaled: NDArray[np.float64] = numbers / np.where(lengths > 0, lengths, 1)
    return scaled
