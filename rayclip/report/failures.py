"""``failures.jsonl``, kept true while a run goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from rayclip.errors import RunStopped
from rayclip.io.storage_errors import reason
from rayclip.output.folder import FeatureFolder
from rayclip.report.results import Failure, VideoResult

REWRITE_S = 10.0  # between two writings of the file, at the least
REWRITE_SHARE = 0.02  # of the time, at the most: there may be millions of failures

logger = logging.getLogger(__name__)


class FailureLog:
    """Failures of this run and, of earlier ones, those of videos that have not succeeded since.

    Attributes:
        known: videos that had failed before this run, and their codes.
    """

    def __init__(
        self, folder: FeatureFolder, is_done: Callable[[str], bool] = lambda video: False
    ) -> None:
        """Read the failures of earlier runs.

        Args:
            folder: where the file is.
            is_done: tells of a video whether its features are there, whoever made them: two runs
                at once into one folder do not know of each other's successes.
        """
        before = folder.read_failures()
        self._folder = folder
        self._failures: dict[str, Failure | dict[str, Any]] = {
            failure["video"]: failure for failure in before if not is_done(failure["video"])
        }
        self.known = {
            failure["video"]: str(failure.get("code"))
            for failure in before
            if failure["video"] in self._failures
        }
        self._changed = len(self._failures) < len(before)
        self._next_s = time.monotonic() + REWRITE_S

    def add(self, result: VideoResult) -> None:
        """Note what became of a video.

        Raises:
            RunStopped: nothing can be written in this folder any more.
        """
        if result.failure is not None:
            self._failures[result.video] = result.failure
            self._changed = True
        elif self._failures.pop(result.video, None) is not None:
            self._changed = True
        if time.monotonic() > self._next_s:
            try:
                self._write()
            except RunStopped:
                raise
            except Exception as error:  # the next time will do
                logger.info("failures.jsonl could not be written: %s", reason(error))

    def write(self) -> None:
        """Write the file, where anything has changed.

        Raises:
            RunStopped: it cannot be written.
        """
        try:
            self._write()
        except RunStopped:
            raise
        except Exception as error:
            raise RunStopped(f"failures.jsonl cannot be written: {reason(error)}.") from error

    def _write(self) -> None:
        began = time.monotonic()
        try:
            if self._changed:
                self._folder.write_failures(map(_as_dict, self._failures.values()))
                self._changed = False
        finally:
            ended = time.monotonic()
            self._next_s = ended + max(REWRITE_S, (ended - began) / REWRITE_SHARE)


def _as_dict(failure: Failure | dict[str, Any]) -> dict[str, Any]:
    return failure.as_dict() if isinstance(failure, Failure) else failure
