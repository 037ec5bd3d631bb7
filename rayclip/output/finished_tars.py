"""The tar files that are finished: a small record of each, beside the features of their videos."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rayclip.io.concurrent_map import concurrent_map
from rayclip.io.folder import Folder
from rayclip.media.tar_names import split_member
from rayclip.output.array_folder import PREDICTIONS_FILE
from rayclip.output.done import FEATURES, DoneVideos
from rayclip.output.folder import FINISHED_TARS, FeatureFolder
from rayclip.output.formats import SUFFIXES
from rayclip.output.safe_names import tar_output_name, utf8_name

SUFFIX = ".json"
FEATURES_FILES = (*(FEATURES + suffix for suffix in SUFFIXES), PREDICTIONS_FILE)


class FinishedTar(NamedTuple):
    """A tar file whose videos are all done, or have failed for good.

    Attributes:
        name: of its record, by :meth:`FinishedTars.name_of`.
        videos: how many there are in it.
        failures: the lines of ``failures.jsonl`` for those that failed.
    """

    name: str
    videos: int
    failures: Sequence[Mapping[str, Any]] = ()

    @property
    def done(self) -> int:
        """How many of them have features."""
        return self.videos - len(self.failures)


class FinishedTars:
    """The records of an output folder."""

    def __init__(
        self, folder: FeatureFolder, storage_options: Mapping[str, Any], naming: str
    ) -> None:
        """Name the records, without reading them.

        Args:
            folder: the output folder of a model.
            storage_options: passed to fsspec.
            naming: of the run, ``stem`` or ``path``.
        """
        self._folder = folder
        self._naming = "path" if folder.discards_all else naming  # as rows are named
        self._records = Folder(f"{folder.url}/{FINISHED_TARS}", storage_options, nested=True)

    def name_of(self, tar: str) -> str:
        """Return the name of the record of a tar file, given its path or URL."""
        return utf8_name(tar_output_name(tar, self._naming))

    def read(self) -> Iterator[FinishedTar]:
        """Read all records; damaged ones are left out, so that their tar files are read again.

        Raises:
            UsageError, RunStopped: one cannot be read.
        """
        files = [file.path for file in self._records.listing((SUFFIX,))]
        for finished in concurrent_map(self._read_one, files):
            if finished is not None:
                yield finished

    def with_features(self, tars: Sequence[FinishedTar], done: DoneVideos) -> Sequence[FinishedTar]:
        """Return those whose features are all there. If some were removed, or a damaged shard, the
        tar file must be read again.

        Args:
            tars: all that are recorded.
            done: the complete videos, listed later than these.
        """
        if sum(tar.done for tar in tars) <= len(done):
            return tars
        names = {tar.name for tar in tars}
        done_names = (name for name in self._folder.names() if name in done)
        found = Counter(self._record_of(name, names) for name in done_names)
        return [tar for tar in tars if found[tar.name] >= tar.done]

    def _record_of(self, name: str, records: Collection[str]) -> str | None:
        """Return the name of the record of a video's tar file, given the video's in the folder."""
        if self._folder.discards_all:  # the names of rows are the inputs
            return self.name_of(split_member(name)[0])
        return next((folder for folder in _parents(name) if folder in records), None)

    def write(self, finished: FinishedTar) -> None:
        """Write a record; raises the same errors as :meth:`~rayclip.io.folder.Folder.write`."""
        record = {"videos": finished.videos, "failures": list(finished.failures)}
        file = finished.name + SUFFIX
        self._records.prepare_parent(file)
        self._records.put(file, (json.dumps(record) + "\n").encode())

    def others(self, tars: Iterable[str]) -> int:
        """Count the videos with features that are in none of these tar files."""
        folders = {self._folder.name_of(tar) for tar in tars}
        return sum(folders.isdisjoint(_parents(name)) for name in self._folder.names())

    def discard(self, tars: Collection[str]) -> None:
        """Remove the records of tar files, then the features of their videos; of all videos if the
        folder discards only all.

        Raises:
            RunStopped: a file cannot be removed.
        """
        self._records.remove_files(self.name_of(tar) + SUFFIX for tar in tars)
        if self._folder.discards_all:
            self._folder.discard(())
            return
        folders = {self._folder.name_of(tar) for tar in tars}
        files = (file.path for file in self._folder.listing(FEATURES_FILES))
        self._folder.remove_files(file for file in files if not folders.isdisjoint(_parents(file)))

    def _read_one(self, file: str) -> FinishedTar | None:
        content = self._records.read(file)
        try:
            record = json.loads(content or b"")
            videos = int(record["videos"])
            failures = [
                {**failure, "video": str(failure["video"])} for failure in record["failures"]
            ]
        except (ValueError, TypeError, KeyError):
            return None
        return FinishedTar(file.removesuffix(SUFFIX), videos, failures)


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path
