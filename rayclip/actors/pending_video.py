"""A video whose features come back from the encoders and are put in order."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rayclip.errors import Code, RunStopped, VideoError
from rayclip.output.rows import Extraction
from rayclip.output.spool import SLICE, FeatureSpool

MAX_CHUNKS = 128  # of a video, returned or in flight, while the oldest is in flight


class Pending(Protocol):
    """The features of a chunk in flight to an encoder."""

    def done(self) -> bool:
        """Whether ``result`` returns without waiting."""
        ...

    def result(self) -> NDArray[np.float32]:
        """Wait for float32 ``[n, D]``; raises the encoder's error."""
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
        """Wait for the features and add them to the video.

        Raises:
            RunStopped: no encoder remains.
        """
        try:
            features = self.pending.result()
        except RunStopped:
            raise
        except Exception as error:
            reason = f"the encoder failed: {error}"
            self.video.fail(VideoError("encode", Code.ENCODER_FAILED, reason))
        else:
            for rows in repeated(features, self.repeats):
                self.video.add(rows)


def repeated(features: NDArray[np.float32], repeats: list[int]) -> Iterator[NDArray[np.float32]]:
    """Repeat each row this many times, in blocks of about :data:`SLICE` bytes: a frame may be shown
    for hours."""
    rows = np.repeat(np.arange(len(features), dtype=np.int32), repeats)
    step = max(1, SLICE // features[:1].nbytes)
    for first in range(0, len(rows), step):
        yield features[rows[first : first + step]]


class PendingVideo:
    """A video whose frames are sent and whose features are not all back.

    Attributes:
        video: its name.
        position: in its task.
        attempt: number of this attempt.
        fps: its own average frame rate.
        error: its first error.
    """

    def __init__(
        self, video: str, position: int, attempt: int, feature_dtype: str = "float32"
    ) -> None:
        self.video = video
        self.position = position
        self.attempt = attempt
        self.fps = float("nan")
        self.error: VideoError | None = None
        self._dtype = feature_dtype
        self._timestamps_ms = array("d")
        self._spool = FeatureSpool()
        self._chunks: deque[PendingChunk] = deque()

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

    def take(self, timestamps_ms: NDArray[np.float64], features: NDArray[np.float32]) -> None:
        """Add features that another task decoded and encoded."""
        self._timestamps_ms.extend(timestamps_ms)
        self.add(features)

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

    def reset(self) -> None:
        """Discard everything, so that the video can begin again."""
        self.error = None
        self._timestamps_ms = array("d")
        self._spool.close()
        self._spool = FeatureSpool()

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

    def extraction(self) -> Extraction:
        """Wait for all features.

        Raises:
            VideoError: something went wrong with this video.
            RunStopped: no encoder remains.
        """
        with self._spool:  # the array stays valid
            while self._chunks:
                self._chunks.popleft().collect()
            if self.error is not None:
                raise self.error
            return Extraction(self._spool.array(), np.array(self._timestamps_ms), self.fps)
