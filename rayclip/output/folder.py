"""The output folder of one model, in whichever format: reading, writing and listing its files."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayclip.errors import RunStopped, UsageError
from rayclip.io.atomic_write import TMP_SUFFIX
from rayclip.io.folder import Folder
from rayclip.io.listing import StoredFile
from rayclip.output.done import DoneVideos
from rayclip.output.formats import SUFFIXES
from rayclip.output.rows import Damage, ScannedVideo, StoredVideo, Work, Writer
from rayclip.output.shard_names import SHARD_SUFFIX
from rayclip.output.spool import slices

RUN_FILE = "run.json"
FAILURES_FILE = "failures.jsonl"
FINISHED_TARS = "finished_tars"  # a folder


class FeatureFolder(Folder, ABC):
    """The output folder of one model.

    Attributes:
        unit: the noun for its features files, in the singular.
        discards_all: whether :meth:`discard` always removes the features of all videos.
    """

    unit: str
    discards_all: bool

    @abstractmethod
    def name_of(self, video: str) -> str:
        """Return a video's name in this folder, given its input path or URL."""

    @abstractmethod
    def writer(self, task: Sequence[str]) -> Writer:
        """Return a writer for the videos of one task.

        Args:
            task: the inputs of the task, in order, which identify it.
        """

    @abstractmethod
    def done(self, listing: Iterable[StoredFile] | None = None) -> DoneVideos:
        """Find each complete video in one listing of the folder.

        Args:
            listing: the result of :meth:`files`; None lists the folder.

        Raises:
            UsageError, RunStopped: it cannot be listed or read.
        """

    @abstractmethod
    def names(self) -> Iterator[str]:
        """List the names of all videos with features, in any state; raises the same errors."""

    @abstractmethod
    def feature_files(self) -> Iterator[StoredFile]:
        """List the files that hold features; raises the same errors as :meth:`files`."""

    @abstractmethod
    def read_file(self, file: str) -> Iterator[StoredVideo]:
        """Read the videos in one of :meth:`feature_files`, with their features, one by one.

        Raises:
            FileNotFoundError: it was removed meanwhile.
            DamagedFile: a file is damaged or cannot be read.
        """

    def scan_file(self, file: str) -> Iterator[ScannedVideo]:
        """Read the videos in one of :meth:`feature_files` in blocks of features.

        Each video must be read before the next. Raises the same errors as :meth:`read_file`.
        """
        for video in self.read_file(file):
            yield ScannedVideo(
                video.name, video.source, slices(video.clip), partial(_same, video.timestamps_ms)
            )

    @abstractmethod
    def verify(self) -> Iterator[Damage | None]:
        """Open every file of features, and those that go with it, and check their content.

        Memory is bounded for ``.npy`` files of any size. A ``.pkl`` file is in memory as a whole,
        twice, and up to :data:`~rayclip.io.concurrent_map.THREADS` are read at once. Of a shard,
        one row group is in memory.

        Yields:
            For each video its first damage, or None; for a damaged shard one damage in total.

        Raises:
            UsageError, RunStopped: the folder cannot be listed.
        """

    @abstractmethod
    def discard(self, names: Iterable[str]) -> None:
        """Remove the features of these videos; of all videos if ``discards_all``."""

    @abstractmethod
    def estimate_work(self, file: StoredFile) -> Work | None:
        """Estimate a file's videos and frames from its name and size; None if no run wrote it."""

    def read_run(self) -> dict[str, Any] | None:
        """Read ``run.json``; returns None if there is none.

        Raises:
            UsageError, RunStopped: it cannot be read or parsed.
        """
        content = self.read(RUN_FILE)
        if content is None:
            return None
        try:
            run = json.loads(content)
            if not isinstance(run, dict) or "model_name" not in run:
                raise ValueError("it holds no settings")
        except ValueError as error:
            raise UsageError(f"{self.url}/{RUN_FILE} is damaged ({error}): remove it.") from error
        return run

    def write_run(self, run: Mapping[str, Any]) -> None:
        """Write ``run.json``.

        Raises:
            UsageError, RunStopped: it cannot be written.
        """
        try:
            self.put(RUN_FILE, (json.dumps(run, indent=2) + "\n").encode())
        except RunStopped:
            raise
        except Exception as error:
            raise self.unusable(f"{self.url}/{RUN_FILE} cannot be written", error) from error

    def read_failures(self) -> list[dict[str, Any]]:
        """Read ``failures.jsonl``; lines that cannot be parsed are left out."""
        failures = []
        for line in (self.read(FAILURES_FILE) or b"").split(b"\n"):
            try:
                failure = json.loads(line)
            except ValueError:
                continue
            if isinstance(failure, dict) and isinstance(failure.get("video"), str):
                failures.append(failure)
        return failures

    def write_failures(self, failures: Iterable[Mapping[str, Any]]) -> None:
        """Write ``failures.jsonl``; raises the same errors as :meth:`Writer.save`."""
        lines = [json.dumps(failure) + "\n" for failure in failures]
        self.put(FAILURES_FILE, "".join(lines).encode())

    def files(self) -> Iterator[StoredFile]:
        """List features files and temporary files; raises the same errors as :meth:`listing`."""
        return self.listing((*SUFFIXES, SHARD_SUFFIX, TMP_SUFFIX))


def _same(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values
