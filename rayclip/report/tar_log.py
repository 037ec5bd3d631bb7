"""Records the tar files that are finished, during a run."""

from __future__ import annotations

import logging
from collections import defaultdict

from rayclip.errors import Code, RunStopped
from rayclip.io.storage_errors import reason
from rayclip.media.tar_names import split_member
from rayclip.output.finished_tars import FinishedTar, FinishedTars
from rayclip.report.results import Failure, VideoResult

logger = logging.getLogger(__name__)


class TarLog:
    """Writes a record of each tar file whose videos are all done, or have failed for good.

    A failure is for good if it is the video's own fault. After others, such as a storage that
    refused a write, the next run reads the tar file again.
    """

    def __init__(self, tars: FinishedTars) -> None:
        self._tars = tars
        self._failures: defaultdict[str, list[Failure]] = defaultdict(list)  # by tar file

    def add(self, result: VideoResult) -> None:
        """Record a result by the model of this folder.

        Raises:
            RunStopped: the folder can no longer be written.
        """
        if result.tar is None:
            if result.failure is not None:
                self._failures[split_member(result.video)[0]].append(result.failure)
            return
        failures = self._failures.pop(result.video, [])
        if result.failure is not None or not all(map(_is_final, failures)):
            return
        lines = [failure.as_dict() for failure in failures]
        finished = FinishedTar(self._tars.name_of(result.video), result.tar.videos, lines)
        try:
            self._tars.write(finished)
        except RunStopped:
            raise
        except Exception as error:  # the next run reads the tar file again
            logger.info("the record of %s could not be written: %s", result.video, reason(error))


def _is_final(failure: Failure) -> bool:
    not_its_own = (Code.WORKER_KILLED, Code.INTERNAL_ERROR)
    return failure.stage in ("open", "decode") and failure.code not in not_its_own
