"""The rate at which videos are finished, from the modification times of their files."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from rayclip.io.listing import StoredFile
from rayclip.output.rows import Work

WINDOWS_S = (600.0, 3600.0)  # the first with enough videos is used
MIN_VIDEOS = 10  # for a rate


@dataclass(frozen=True)
class Rate:
    """The work finished in a period.

    Attributes:
        videos: number of videos, at least 1.
        frames: frames of these videos, from the sizes of their files.
        seconds: length of the period, at least 1.
    """

    videos: int
    frames: float
    seconds: float


@dataclass
class Recent:
    """Counts the recently written feature files of a listing.

    Attributes:
        estimate_work: the videos and frames in a file; None if it has no features or was compacted.
        now: seconds since 1970.
        started: start of the run, in seconds since 1970; earlier files do not count. None if
            unknown.
        newest: modification time of the newest file; None if no file has one.
    """

    estimate_work: Callable[[StoredFile], Work | None]
    now: float
    started: float | None
    newest: float | None = None
    _videos: Counter[float] = field(default_factory=Counter)
    _frames: defaultdict[float, float] = field(default_factory=lambda: defaultdict(float))

    def tracking(self, listing: Iterable[StoredFile]) -> Iterator[StoredFile]:
        """Yield the files of a listing, and count them."""
        for file in listing:
            work = self.estimate_work(file)
            if work is not None and file.modified is not None:
                self._count(work, file.modified)
            yield file

    def rate(self) -> Rate | None:
        """The rate over the shortest window with :data:`MIN_VIDEOS` videos.

        If no window has that many, the rate over the longest one; None if that has no video.
        """
        for window in WINDOWS_S:
            videos = self._videos[window]
            if videos >= (MIN_VIDEOS if window < WINDOWS_S[-1] else 1):
                return Rate(videos, self._frames[window], max(1.0, self.now - self._since(window)))
        return None

    def _count(self, work: Work, modified: float) -> None:
        self.newest = max(modified, self.newest or 0.0)
        for window in WINDOWS_S:
            if modified >= self._since(window):
                self._videos[window] += work.videos
                self._frames[window] += work.frames

    def _since(self, window: float) -> float:
        since = self.now - window
        return since if self.started is None else max(since, self.started)
