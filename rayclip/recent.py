"""How fast videos are finished, by the times at which storages say that files were written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from rayclip.done import FEATURES
from rayclip.formats import SUFFIXES, FileFormat
from rayclip.listing import StoredFile

WINDOWS_S = (600.0, 3600.0)  # over which a rate is told: the first in which enough was finished
ENOUGH = 10  # videos, for a rate


@dataclass(frozen=True)
class Rate:
    """What was finished in a time.

    Attributes:
        videos: at least one.
        frames: of these, by the sizes of their files.
        seconds: at least one.
    """

    videos: int
    frames: float
    seconds: float


@dataclass
class Recent:
    """The features files of one listing, counted: how many came lately.

    Attributes:
        files: the run's format.
        dim: features per frame.
        now: seconds since 1970.
        begun: when the run began, before which nothing counts; None where nobody knows.
        newest: when the last file was written; None where no file tells.
        features: features files in the run's format.
        other_format: those in another.
    """

    files: FileFormat
    dim: int
    now: float
    begun: float | None
    newest: float | None = None
    features: int = 0
    other_format: int = 0
    _videos: Counter[float] = field(default_factory=Counter)
    _bytes: Counter[float] = field(default_factory=Counter)

    def noting(self, listing: Iterable[StoredFile]) -> Iterator[StoredFile]:
        """Hand a listing on, and count what passes by."""
        for file in listing:
            if file.path.endswith(FEATURES + self.files.suffix):
                self._note(file)
            elif any(file.path.endswith(FEATURES + other) for other in SUFFIXES):
                self.other_format += 1
            yield file

    def rate(self) -> Rate | None:
        """Over the shortest window with :data:`ENOUGH` videos, else over the longest with any."""
        for window in WINDOWS_S:
            videos = self._videos[window]
            if videos >= (ENOUGH if window < WINDOWS_S[-1] else 1):
                row = np.dtype(self.files.dtype).itemsize * self.dim
                overhead = self.files.features_size(1, self.dim) - row
                frames = (self._bytes[window] - videos * overhead) / row
                return Rate(videos, frames, max(1.0, self.now - self._since(window)))
        return None

    def _note(self, file: StoredFile) -> None:
        self.features += 1
        if file.modified is None:
            return
        self.newest = max(file.modified, self.newest or 0.0)
        for window in WINDOWS_S:
            if file.modified >= self._since(window):
                self._videos[window] += 1
                self._bytes[window] += file.size

    def _since(self, window: float) -> float:
        since = self.now - window
        return since if self.begun is None else max(since, self.begun)
