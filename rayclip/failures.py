"""``failures.jsonl``, kept true while a run goes on."""

from __future__ import annotations

import time
from typing import Any

from rayclip.results import VideoResult
from rayclip.storage import OutputFolder

REWRITE_S = 10.0


class FailureLog:
    """Failures of this run and, of earlier ones, those of videos that have not succeeded since."""

    def __init__(self, folder: OutputFolder) -> None:
        self._folder = folder
        self._failures: dict[str, dict[str, Any]] = {
            failure["video"]: failure for failure in folder.read_failures()
        }
        self._changed = False
        self._written = time.monotonic()

    def add(self, result: VideoResult) -> None:
        if result.failure is not None:
            self._failures[result.video] = result.failure.as_dict()
            self._changed = True
        elif self._failures.pop(result.video, None) is not None:
            self._changed = True
        if time.monotonic() - self._written > REWRITE_S:
            self.write()

    def write(self) -> None:
        """Write the file, where anything has changed."""
        if self._changed:
            self._folder.write_failures(self._failures.values())
            self._changed = False
        self._written = time.monotonic()
