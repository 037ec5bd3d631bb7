"""A video whose features come back from the encoders, for each model, and are put in order."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from rayclip.errors import Code, RunStopped, VideoError
from rayclip.output.rows import Extraction
from rayclip.output.spool import SLICE, FeatureSpool

if TYPE_CHECKING:
    import pyarrow as pa

MAX_CHUNKS = 128  # of a video, returned or in flight, while the oldest is in flight


class Pending(Protocol):
    """The features of a chunk in flight to an encoder."""

    def done(self) -> bool:
        """Whether ``result`` returns without waiting."""
        ...

    def result(self) -> Sequence[NDArray[np.float32] | Exception]:
        """Wait for float32 ``[n, D]`` of each model, or its encoder's error."""
        ...


@dataclass(frozen=True)
class PendingChunk:
    """Frames of one video that were sent together.

    Attributes:
        video: that they belong to.
        repeats: how often the output repeats each frame.
        pending: their features.
    """

    video: PendingVideo
    repeats: list[int]
    pending: Pending

    def collect(self) -> None:
        """Wait for the features and add them to those of their models.

        Raises:
            RunStopped: no encoder remains.
        """
        results: Sequence[NDArray[np.float32] | Exception]
        try:
            results = self.pending.result()
        except RunStopped:
            raise
        except Exception as error:
            results = [error] * len(self.video.models)
        for model, result in zip(self.video.models, results, strict=True):
            if isinstance(result, RunStopped):
                raise result
            if isinstance(result, Exception):
                reason = f"the encoder failed: {result}"
                model.fail(VideoError("encode", Code.ENCODER_FAILED, reason))
            else:
                for rows in repeated(result, self.repeats):
                    model.add(rows)


def repeated(features: NDArray[np.float32], repeats: list[int]) -> Iterator[NDArray[np.float32]]:
    """Repeat each row this many times, in blocks of about :data:`SLICE` bytes: a frame may be shown
    for hours."""
    rows = np.repeat(np.arange(len(features), dtype=np.int32), repeats)
    step = max(1, SLICE // features[:1].nbytes)
    for first in range(0, len(rows), step):
        yield features[rows[first : first + step]]


class ModelFeatures:
    """The features of a video by one model, which may fail while others do not.

    Attributes:
        number: of the model, among those of the run.
        error: its first error.
    """

    def __init__(self, number: int, dtype: str) -> None:
        self.number = number
        self.error: VideoError | None = None
        self._dtype = dtype
        self._spool = FeatureSpool()

    def add(self, features: NDArray[np.float32]) -> None:
        """Append features, float32 ``[n, D]``."""
        if self.error is not None:
            return
        if not np.isfinite(features).all():
            reason = "the model returned features that are not finite"
            self.fail(VideoError("encode", Code.NOT_FINITE, reason))
            return
        with np.errstate(over="ignore"):
            fits = np.isfinite(features.astype(self._dtype, copy=False)).all()
        if not fits:
            reason = f"a feature is beyond what {self._dtype} holds: save float32"
            self.fail(VideoError("encode", Code.NOT_FINITE, reason))
            return
        try:
            self._spool.append(features)
        except OSError as error:
            reason = f"the temporary file of its features cannot be written: {error}"
            self.fail(VideoError("write", Code.NO_TEMPORARY_FILE, reason))

    def fail(self, error: VideoError) -> None:
        if self.error is None:  # a copy: the original keeps the decoder's frames alive
            self.error = type(error)(error.stage, error.code, error.message)

    def array(self) -> NDArray[np.float32]:
        """Return all features, float32 ``[T, D]``.

        Raises:
            VideoError: something went wrong with this video.
        """
        if self.error is not None:
            raise self.error
        return self._spool.array()

    def close(self) -> None:
        """Free what is not in an array."""
        self._spool.close()


class PendingVideo:
    """A video whose frames are sent and whose features are not all back. As a context manager, it
    frees them.

    Attributes:
        video: its name.
        position: in its task.
        attempt: number of this attempt.
        columns: one row with its further columns; None if there are none.
        fps: its own average frame rate.
        models: the features of each model.
    """

    def __init__(
        self,
        video: str,
        position: int,
        attempt: int,
        models: Sequence[int] = (0,),
        feature_dtype: str = "float32",
        columns: pa.Table | None = None,
    ) -> None:
        self.video = video
        self.position = position
        self.attempt = attempt
        self.columns = columns
        self.fps = float("nan")
        self._dtype = feature_dtype
        self._chunks: deque[PendingChunk] = deque()
        self._begin(models)

    def __enter__(self) -> PendingVideo:
        return self

    def __exit__(self, *exception: object) -> None:
        for model in self.models:
            model.close()

    def _begin(self, models: Sequence[int]) -> None:
        self._timestamps_ms = array("d")
        self.models = [ModelFeatures(number, self._dtype) for number in models]

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of its models."""
        return tuple(model.number for model in self.models)

    @property
    def error(self) -> VideoError | None:
        """The error of the first model, if all have failed."""
        errors = [model.error for model in self.models]
        return errors[0] if all(errors) else None

    def send(self, pending: Pending, timestamps_ms: list[tuple[float, ...]]) -> PendingChunk:
        """Record that frames were sent, and the timestamps at which the output has each.

        Raises:
            RunStopped: no encoder remains.
        """
        for times in timestamps_ms:
            self._timestamps_ms.extend(times)
        chunk = PendingChunk(self, [len(times) for times in timestamps_ms], pending)
        self._chunks.append(chunk)
        if len(self._chunks) > MAX_CHUNKS:
            self._chunks.popleft().collect()
        return chunk

    def take(
        self, timestamps_ms: NDArray[np.float64], features: Sequence[NDArray[np.float32]]
    ) -> None:
        """Add features of each model that another task decoded and encoded."""
        self._timestamps_ms.extend(timestamps_ms)
        for model, rows in zip(self.models, features, strict=True):
            model.add(rows)

    def fail(self, error: VideoError) -> None:
        """Fail for all models."""
        for model in self.models:
            model.fail(error)

    def restarted(self) -> PendingVideo:
        """Return the same video with nothing sent; what is in flight still belongs to this one."""
        return PendingVideo(
            self.video, self.position, self.attempt, self.numbers, self._dtype, self.columns
        )

    def reset(self) -> None:
        """Discard everything, so that the video can begin again."""
        for model in self.models:
            model.close()
        self._begin(self.numbers)

    def collect(self) -> None:
        """Take the features that are back, up to the first that is missing.

        Raises:
            RunStopped: no encoder remains.
        """
        while self._chunks and self._chunks[0].pending.done():
            self._chunks.popleft().collect()

    def is_ready(self) -> bool:
        """Whether all its features are back."""
        self.collect()
        return not self._chunks

    def wait(self) -> None:
        """Wait for all features.

        Raises:
            RunStopped: no encoder remains.
        """
        while self._chunks:
            self._chunks.popleft().collect()

    def extraction(self, model: ModelFeatures) -> Extraction:
        """Return the features of a model; the array stays valid. All must be back.

        Raises:
            VideoError: something went wrong with this video.
        """
        return Extraction(model.array(), np.array(self._timestamps_ms), self.fps)
