"""A video whose features come back from the encoders, and are put in order again."""

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

MAX_CHUNKS = 128  # of a video that are back or on their way while the oldest is not back


class Pending(Protocol):
    """The features of a chunk that is on its way through an encoder."""

    def done(self) -> bool:
        """Whether nobody has to wait for the result."""
        ...

    def result(self) -> NDArray[np.float32]:
        """Wait for float32 ``[n, D]``; raises what went wrong in the encoder."""
        ...


@dataclass(frozen=True)
class PendingChunk:
    """Frames of one video that were sent together.

    Attributes:
        video: the video that they are of.
        repeats: how often the output shows each.
        pending: their features.
    """

    video: PendingVideo
    repeats: list[int]
    pending: Pending

    def collect(self) -> None:
        """Wait for the features and hand them over.

        Raises:
            RunStopped: no encoder is left.
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
    """Each row this many times, in blocks of about :data:`SLICE` bytes: a frame may be shown for
    hours."""
    rows = np.repeat(np.arange(len(features), dtype=np.int32), repeats)
    step = max(1, SLICE // features[:1].nbytes)
    for first in range(0, len(rows), step):
        yield features[rows[first : first + step]]


class PendingVideo:
    """A video whose frames are sent and whose features are not all back.

    Attributes:
        video: as it was given.
        position: in its group.
        attempt: the number of this attempt at it.
        fps: its own average frame rate.
        error: the first thing that went wrong with it.
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
        """Note that frames were sent, and when the output shows each.

        Raises:
            RunStopped: no encoder is left.
        """
        for times in timestamps_ms:
            self._timestamps_ms.extend(times)
        chunk = PendingChunk(self, [len(times) for times in timestamps_ms], pending)
        self._chunks.append(chunk)
        if len(self._chunks) > MAX_CHUNKS:
            self._chunks.popleft().collect()
        return chunk

    def take(self, timestamps_ms: NDArray[np.float64], features: NDArray[np.float32]) -> None:
        """Note what somebody else decoded and encoded."""
        self._timestamps_ms.extend(timestamps_ms)
        self.add(features)

    def add(self, features: NDArray[np.float32]) -> None:
        """Append float32 ``[n, D]`` to those that are back."""
        if self.error is not None:
            return
        if not np.isfinite(features).all():
            reason = "the model gave features that are not finite"
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
        if self.error is None:  # a copy: the one that was raised holds what decoding it held
            self.error = type(error)(error.stage, error.code, error.message)

    def forget(self) -> None:
        """Begin again with this video."""
        self.error = None
        self._timestamps_ms = array("d")
        self._spool.close()
        self._spool = FeatureSpool()

    def collect(self) -> None:
        """Take the features that are back, as far as those before them are.

        Raises:
            RunStopped: no encoder is left.
        """
        while self._chunks and self._chunks[0].pending.done():
            self._chunks.popleft().collect()

    def is_ready(self) -> bool:
        """Whether nobody has to wait for its features."""
        self.collect()
        return not self._chunks

    def extraction(self) -> Extraction:
        """Wait for all features.

        Raises:
            VideoError: something went wrong with this video.
            RunStopped: no encoder is left.
        """
        with self._spool:  # the array stays valid
            while self._chunks:
                self._chunks.popleft().collect()
            if self.error is not None:
                raise self.error
            return Extraction(self._spool.array(), np.array(self._timestamps_ms), self.fps)
