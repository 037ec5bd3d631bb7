"""What an export reads: the files of features of a folder, and what tells that one has changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from rayclip.console import shown
from rayclip.errors import RayclipError, RunStopped, UsageError
from rayclip.io.concurrent_map import MAX_IN_FLIGHT, concurrent_map
from rayclip.io.listing import StoredFile
from rayclip.output.done import name_hash
from rayclip.output.finished import read_file, reading_order
from rayclip.output.folder import FeatureFolder
from rayclip.output.rows import StoredVideo
from rayclip.output.safe_names import output_name, tar_output_name, utf8_name
from rayclip.output.shard_names import SHARD, VIDEO
from rayclip.output.shard_reading import read_shard
from rayclip.output.stored_arrays import DamagedContent

READ_AHEAD = 64 * 2**20  # bytes of features read at once from a remote storage


class SourceFile(NamedTuple):
    """A file of features.

    Attributes:
        path: its name in the folder.
        size: bytes.
        stamp: 64 bits that differ if the file is written again.
        columns: the columns of a shard; the same text for all shards with the same columns.
        skipped: the rows of a shard whose videos are in an earlier shard.
    """

    path: str
    size: int
    stamp: int
    columns: str = ""
    skipped: frozenset[int] = frozenset()


class ShardNames(NamedTuple):
    """The names of the videos in a shard, as hashes.

    Attributes:
        videos: hashes of the videos.
        keys: hashes of the names that an export gives them.
        columns: the columns of the shard.
    """

    videos: NDArray[np.uint64]
    keys: NDArray[np.uint64]
    columns: str


class Source:
    """A folder as an export reads it."""

    def __init__(
        self, folder: FeatureFolder, naming: str, for_any_storage: bool, of_tars: bool = False
    ) -> None:
        """Name a source.

        Args:
            folder: the folder of one model.
            naming: how inputs are named, ``stem`` or ``path``.
            for_any_storage: whether the names of an export must be valid UTF-8.
            of_tars: whether the inputs are videos in tar files.
        """
        self.folder = folder
        self._naming = naming
        self._for_any_storage = for_any_storage
        self._name_of = tar_output_name if of_tars else output_name

    def key_of(self, video: StoredVideo) -> str:
        """Return the name of a video's file or group, which may contain folders."""
        return self._valid(video.name) if video.source is None else self._key(video.source)

    def _key(self, source: str) -> str:
        return self._valid(self._name_of(source, self._naming))

    def _valid(self, key: str) -> str:
        return utf8_name(key) if self._for_any_storage else key

    def files(self, with_different_keys: bool) -> list[SourceFile]:
        """List the files of features, in the order in which they are read.

        Of shards, the names of the videos are read.

        Args:
            with_different_keys: whether :meth:`key_of` must differ for all videos.

        Raises:
            UsageError: two videos have the same key.
            RunStopped: the folder changed meanwhile.
            RayclipError: a shard is damaged or cannot be read.
        """
        listed = sorted(
            map(_as_listed, self.folder.feature_files()), key=lambda file: reading_order(file.path)
        )
        shards = [file.path for file in listed if SHARD.fullmatch(file.path)]
        names = dict(zip(shards, concurrent_map(self._read_names, shards), strict=True))
        if with_different_keys:
            self._refuse_equal_keys(names)
        skipped = _repeated(names)
        return [
            _with_names(file, names[file.path].columns, skipped.get(file.path, frozenset()))
            if file.path in names
            else file
            for file in listed
        ]

    def read(self, files: Iterable[SourceFile]) -> Iterator[StoredVideo]:
        """Read the videos of some files, each once.

        Raises:
            RunStopped: a file was removed since it was listed.
            RayclipError: a file is damaged or cannot be read.
        """
        for batch in self._batches(files):
            if len(batch) == 1:
                yield from self._read_file(batch[0])
            else:
                for videos in concurrent_map(lambda file: list(self._read_file(file)), batch):
                    yield from videos

    def _batches(self, files: Iterable[SourceFile]) -> Iterator[list[SourceFile]]:
        """Group files that are read at the same time, since requests mostly wait."""
        fs, _ = self.folder.fs_and_path()
        at_once = 0 if isinstance(fs, LocalFileSystem) else READ_AHEAD
        batch: list[SourceFile] = []
        size = 0
        for file in files:
            size += file.size
            if batch and (size > at_once or len(batch) == MAX_IN_FLIGHT):
                yield batch
                batch, size = [], file.size
            batch.append(file)
        if batch:
            yield batch

    def _read_file(self, file: SourceFile) -> Iterator[StoredVideo]:
        try:
            for row, video in enumerate(read_file(self.folder, file.path)):
                if row not in file.skipped:
                    yield video
        except FileNotFoundError as error:
            raise self._changed(file.path) from error

    def _read_names(self, file: str) -> ShardNames:
        try:
            return read_shard(self.folder, file, self._names)
        except FileNotFoundError as error:
            raise self._changed(file) from error
        except DamagedContent as error:
            raise RayclipError(
                f"{shown(f'{self.folder.url}/{file}')} cannot be loaded: {error}. Remove it and "
                "rerun the same extraction."
            ) from error

    def _names(self, shard: pq.ParquetFile) -> ShardNames:
        videos = shard.read(columns=[VIDEO]).column(VIDEO).to_pylist()
        keys = [self._key(video) for video in videos]
        return ShardNames(_hashes(videos), _hashes(keys), str(shard.schema_arrow))

    def _changed(self, file: str) -> RunStopped:
        return RunStopped(
            f"{shown(f'{self.folder.url}/{file}')} was removed during the command, for example "
            "because rayclip compact or an extraction is running: rerun this command when that "
            "has ended; what is exported is kept."
        )

    def _refuse_equal_keys(self, names: Mapping[str, ShardNames]) -> None:
        videos = _joined([shard.videos for shard in names.values()])
        keys = _joined([shard.keys for shard in names.values()])
        _, first = np.unique(videos, return_index=True)
        distinct, counts = np.unique(keys[first], return_counts=True)
        if not (counts > 1).any():
            return
        wanted = int(distinct[counts > 1][0])
        found: dict[str, None] = {}
        for file, shard in names.items():
            if wanted in shard.keys:
                read = partial(read_shard, self.folder, file, lambda s: s.read(columns=[VIDEO]))
                for video in read().column(VIDEO).to_pylist():
                    if name_hash(self._key(video)) == wanted:
                        found[video] = None
        one, other, *_ = found
        advice = "give --naming path" if self._naming == "stem" else "use --format frames-parquet"
        raise UsageError(
            f"{shown(one)} and {shown(other)} would both be named "
            f"{shown(self._key(one))}: {advice}."
        )


def _as_listed(file: StoredFile) -> SourceFile:
    stamp = name_hash(f"{file.path}\0{file.size}\0{file.modified}")
    return SourceFile(file.path, file.size, stamp)


def _with_names(file: SourceFile, columns: str, skipped: frozenset[int]) -> SourceFile:
    stamp = name_hash(f"{file.stamp}\0{sorted(skipped)}") if skipped else file.stamp
    return file._replace(stamp=stamp, columns=columns, skipped=skipped)


def _repeated(names: Mapping[str, ShardNames]) -> dict[str, frozenset[int]]:
    """Return for each shard the rows whose videos are in an earlier one, if there are any."""
    videos = _joined([shard.videos for shard in names.values()])
    is_repeated = np.ones(len(videos), np.bool_)
    is_repeated[np.unique(videos, return_index=True)[1]] = False
    repeated, start = {}, 0
    for file, shard in names.items():
        rows = np.flatnonzero(is_repeated[start : start + len(shard.videos)])
        start += len(shard.videos)
        if len(rows):
            repeated[file] = frozenset(rows.tolist())
    return repeated


def _hashes(names: Iterable[str]) -> NDArray[np.uint64]:
    return np.array([name_hash(name) for name in names], np.uint64)


def _joined(hashes: list[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    return np.concatenate([np.empty(0, np.uint64), *hashes])
