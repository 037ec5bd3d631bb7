"""How fast videos are finished, by the times at which storages say that files were written."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from rayclip.io.listing import StoredFile
from rayclip.output.rows import Work

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
    """The files of features of one listing, counted: how many came lately.

    Attributes:
        estimate_work: what a file holds of the work of runs.
        now: seconds since 1970.
        begun: when the run began, before which nothing counts; None where nobody knows.
        newest: when the last file was written; None where no file tells.
    """

    estimate_work: Callable[[StoredFile], Work | None]
    now: float
    begun: float | None
    newest: float | None = None
    _videos: Counter[float] = field(default_factory=Counter)
    _frames: defaultdict[float, float] = field(default_factory=lambda: defaultdict(float))

    def noting(self, listing: Iterable[StoredFile]) -> Iterator[StoredFile]:
        """Hand a listing on, and count what passes by."""
        for file in listing:
            work = self.estimate_work(file)
            if work is not None and file.modified is not None:
                self._note(work, file.modified)
            yield file

    def rate(self) -> Rate | None:
        """Over the shortest window with :data:`ENOUGH` videos, else over the longest with any."""
        for window in WINDOWS_S:
            videos = self._videos[window]
            if videos >= (ENOUGH if window < WINDOWS_S[-1] else 1):
                return Rate(videos, self._frames[window], max(1.0, self.now - self._since(window)))
        return None

    def _note(self, work: Work, modified: float) -> None:
        self.newest = max(modified, self.newest or 0.0)
        for window in WINDOWS_S:
            if modified >= self._since(window):
                self._videos[window] += work.videos
                self._frames[window] += work.frames

    def _since(self, window: float) -> float:
        since = self.now - window
        return since if self.begun is None else max(since, self.begun)
