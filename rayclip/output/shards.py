"""Shards: write-once parquet files with one row for each video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import repeat
from typing import Any

import pyarrow as pa

from rayclip.errors import RayclipError
from rayclip.io.listing import StoredFile
from rayclip.media.watchdog import LIBAV
from rayclip.output.done import DoneVideos
from rayclip.output.folder import FeatureFolder
from rayclip.output.rows import Damage, Row, StoredVideo, Work
from rayclip.output.shard_names import (
    JOINED,
    SHARD,
    names_key,
    row_count,
    row_name,
    shard_name,
)
from rayclip.output.shard_reading import find_rows, frames_by_video, read_names, read_shard
from rayclip.output.shard_rows import read_rows
from rayclip.output.shard_tables import (
    ROW_GROUP,
    WRITING,
    find_damage,
    row_tables,
    shard_schema,
    write_tables,
)
from rayclip.output.stored_arrays import DamagedContent

BUFFER_BYTES = 64 * 2**20
BUFFER_S = 60.0
BY_PREFIX = {"s3", "s3a", "gs", "gcs"}  # protocols of storages that can list by prefix


class ShardFolder(FeatureFolder):
    """A folder of shards, which are named by their content."""

    unit = "shard"
    discards_all = True

    def __init__(
        self, url: str, dim: int, storage_options: Mapping[str, Any], dtype: str = "float32"
    ) -> None:
        """Name a folder, without creating or reading it.

        Args:
            url: a local path or an fsspec URL.
            dim: features per frame.
            storage_options: passed to fsspec.
            dtype: ``float32`` or ``float16``, of features.

        Raises:
            UsageError: the URL's protocol is unknown.
        """
        super().__init__(url, storage_options)
        self.dim = dim
        self.dtype = dtype

    def name_of(self, video: str) -> str:
        return row_name(video)

    def writer(self, task: Sequence[str]) -> ShardWriter:
        return ShardWriter(self, task)

    def put_shard(
        self, name: str, size: int, schema: pa.Schema, tables: Callable[[], Iterable[Any]]
    ) -> None:
        """Write a shard atomically.

        Args:
            name: from :func:`~rayclip.output.shard_names.shard_name`.
            size: its approximate size in bytes.
            schema: the schema of its rows.
            tables: returns its row groups; called again for each retry.

        Raises:
            RunStopped: the folder cannot be written; the message says why and what to do.
            Exception: any error of the storage; the shard was not written.
        """
        try:
            self.write(name, size, lambda file: write_tables(file, schema, tables()))
        finally:  # otherwise it counts as memory of the next video
            pa.default_memory_pool().release_unused()

    def done(self, listing: Iterable[StoredFile] | None = None) -> DoneVideos:
        return find_rows(self, listing)

    def names(self) -> Iterator[str]:
        for file in self.feature_files():
            with suppress(FileNotFoundError, DamagedContent):
                yield from read_shard(self, file.path, read_names)

    def feature_files(self) -> Iterator[StoredFile]:
        return (file for file in self.files() if SHARD.fullmatch(file.path))

    def read_file(self, file: str) -> Iterator[StoredVideo]:
        return read_rows(self, file, shard_schema(None, self.dim, self.dtype))

    def verify(self) -> Iterator[Damage | None]:
        for file in self.feature_files():
            reason = shard_damage(self, file.path)
            if reason:
                yield Damage(file.path, reason)
            else:
                yield from repeat(None, row_count(file.path))

    def discard(self, names: Iterable[str]) -> None:
        self.remove_files([file.path for file in self.feature_files()])

    def estimate_work(self, file: StoredFile) -> Work | None:
        found = SHARD.fullmatch(file.path)
        if found is None or found["task"] == JOINED:
            return None
        frame = self.dim * (2 if self.dtype == "float16" else 4) + 8  # with its timestamp
        return Work(int(found["rows"]), file.size / frame)

    def shards_by_task(self, task: str) -> list[str]:
        """Return the names of the shards that a task has written, given its key."""
        self._fs.invalidate_cache(self._root)
        protocol = self._fs.protocol
        if BY_PREFIX & ({protocol} if isinstance(protocol, str) else {*protocol}):
            found = self._fs.find(self._root, prefix=task)
        else:
            found = self._fs.ls(self._root, detail=False)
        names = [path.rstrip("/").rpartition("/")[2] for path in found]
        return [name for name in names if name.startswith(task) and SHARD.fullmatch(name)]


class ShardWriter:
    """Writes the rows of one task into shards."""

    buffer_bytes = BUFFER_BYTES
    buffer_s = BUFFER_S

    def __init__(self, folder: ShardFolder, task: Sequence[str]) -> None:
        self._folder = folder
        self._task_key = names_key(map(row_name, task))
        self._before: dict[str, int] | None = None

    def saved_before(self, video: str) -> int | None:
        if self._before is None:
            self._before = frames_by_video(
                self._folder, partial(self._folder.shards_by_task, self._task_key)
            )
        return self._before.get(row_name(video))

    def save(self, rows: Sequence[Row]) -> None:
        columns = rows[0].columns
        schema = shard_schema(
            None if columns is None else columns.schema,
            self._folder.dim,
            self._folder.dtype,
            with_predictions=rows[0].predictions is not None,
        )
        name = shard_name(self._task_key, [row_name(row.video) for row in rows])
        size = sum(row.extraction.clip.nbytes for row in rows)
        largest = max(ROW_GROUP, *(row.extraction.clip.nbytes for row in rows))
        with LIBAV.exempting(WRITING * largest):  # a long video takes more than decoding may
            self._folder.put_shard(name, size, schema, lambda: row_tables(rows, schema))


def shard_damage(folder: ShardFolder, file: str) -> str | None:
    """Read a whole shard and say what is wrong; None if nothing is, or if it was removed."""
    schema = shard_schema(None, folder.dim, folder.dtype)
    try:
        return read_shard(folder, file, partial(find_damage, schema=schema))
    except FileNotFoundError:
        return None
    except (DamagedContent, RayclipError) as error:
        return str(error)
