"""``failures.jsonl``, kept up to date during a run."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rayclip.errors import RunStopped
from rayclip.io.storage_errors import reason
from rayclip.media.tar_names import split_member
from rayclip.output.folder import FeatureFolder
from rayclip.report.results import Failure, VideoResult

MIN_REWRITE_INTERVAL_S = 10.0
MAX_REWRITE_SHARE = 0.02  # of the run's time: there may be millions of failures

logger = logging.getLogger(__name__)


class FailureLog:
    """The failures of this run, and those of earlier runs whose videos have not succeeded since.

    Attributes:
        failed_before: videos that failed in earlier runs, and their codes.
    """

    def __init__(
        self,
        folder: FeatureFolder,
        is_done: Callable[[str], bool] = lambda video: False,
        of_finished_tars: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Read the failures of earlier runs.

        Args:
            folder: holds the file.
            is_done: whether the features of a video exist. Another run into the same folder may
                have saved them.
            of_finished_tars: failures in tar files that are not read again. A run that was killed
                may not have written them.
        """
        earlier = {failure["video"]: failure for failure in folder.read_failures()}
        self._folder = folder
        self._failures: dict[str, Failure | Mapping[str, Any]] = {
            video: failure for video, failure in earlier.items() if not is_done(video)
        }
        self.failed_before = {video: str(earlier[video].get("code")) for video in self._failures}
        self._failures |= {failure["video"]: failure for failure in of_finished_tars}
        self._changed = self._failures.keys() != earlier.keys()
        self._earlier_by_tar: defaultdict[str, list[str]] = defaultdict(list)
        for video in self.failed_before:
            self._earlier_by_tar[split_member(video)[0]].append(video)
        self._next_s = time.monotonic() + MIN_REWRITE_INTERVAL_S

    def add(self, result: VideoResult) -> None:
        """Record the result of a video.

        Raises:
            RunStopped: the folder can no longer be written.
        """
        if result.failure is not None:
            self._failures[result.video] = result.failure
            self._changed = True
        elif self._failures.pop(result.video, None) is not None:
            self._changed = True
        if result.tar is not None and result.failure is None:
            self._forget_earlier(result.video)
        if time.monotonic() > self._next_s:
            try:
                self._write()
            except RunStopped:
                raise
            except Exception as error:  # the next write may succeed
                logger.info("failures.jsonl could not be written: %s", reason(error))

    def _forget_earlier(self, tar: str) -> None:
        """Forget the failures of videos that a tar file, which was read to its end, no longer
        has."""
        for video in self._earlier_by_tar.pop(tar, ()):
            if isinstance(self._failures.get(video), Mapping):
                del self._failures[video]
                self._changed = True

    def write(self) -> None:
        """Write the file if anything has changed.

        Raises:
            RunStopped: the file cannot be written.
        """
        try:
            self._write()
        except RunStopped:
            raise
        except Exception as error:
            raise RunStopped(f"failures.jsonl cannot be written: {reason(error)}.") from error

    def _write(self) -> None:
        started = time.monotonic()
        try:
            if self._changed:
                self._folder.write_failures(map(_as_dict, self._failures.values()))
                self._changed = False
        finally:
            ended = time.monotonic()
            pause_s = max(MIN_REWRITE_INTERVAL_S, (ended - started) / MAX_REWRITE_SHARE)
            self._next_s = ended + pause_s


def _as_dict(failure: Failure | Mapping[str, Any]) -> Mapping[str, Any]:
    return failure.as_dict() if isinstance(failure, Failure) else failure
