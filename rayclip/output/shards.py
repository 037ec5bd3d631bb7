"""Features as one row for each video, in parquet files that are put once: the shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from rayclip.errors import RayclipError
from rayclip.io.listing import StoredFile
from rayclip.output.done import DoneVideos
from rayclip.output.folder import FeatureFolder
from rayclip.output.rows import Row, Work
from rayclip.output.shard_names import JOINED, SHARD, names_key, row_name, shard_name
from rayclip.output.shard_reading import find_rows, frames_by_video, read_shard
from rayclip.output.shard_tables import find_damage, row_tables, shard_schema, write_tables
from rayclip.output.stored_arrays import Damaged

BUFFER_BYTES = 64 * 2**20
BUFFER_S = 60.0
MAX_BYTES = 256 * 2**20  # of a row: five times as much memory to write, and eight as float16
BY_PREFIX = {"s3", "s3a", "gs", "gcs"}  # storages that list by the beginning of names


class ShardFolder(FeatureFolder):
    """A folder with a row for each video, in shards that are named by what they hold."""

    unit = "shard"
    discards_all = True

    def __init__(
        self, url: str, dim: int, storage_options: Mapping[str, Any], dtype: str = "float32"
    ) -> None:
        """Name a folder; nothing is made or read yet.

        Args:
            url: a local path or an fsspec URL.
            dim: features per frame.
            storage_options: given to fsspec.
            dtype: of a feature, ``float32`` or ``float16``.

        Raises:
            UsageError: no storage is known under this URL's protocol.
        """
        super().__init__(url, storage_options)
        self.dim = dim
        self.dtype = dtype

    def name_of(self, video: str) -> str:
        return row_name(video)

    def writer(self, videos: Sequence[str], extra_columns: pa.Table | None) -> ShardWriter:
        return ShardWriter(self, videos, extra_columns)

    def put_shard(
        self, name: str, size: int, schema: pa.Schema, tables: Callable[[], Iterable[Any]]
    ) -> None:
        """Write a shard as a whole.

        Args:
            name: from :func:`~rayclip.output.shard_names.shard_name`.
            size: about how many bytes it has.
            schema: of its rows.
            tables: gives its row groups, anew for each attempt.

        Raises:
            RunStopped: nothing can be written here: the sentence says why and what to do.
            Exception: what the storage raises; there is no new shard then.
        """
        self._write(name, size, lambda file: write_tables(file, schema, tables()))

    def done(self, listing: Iterable[StoredFile] | None = None) -> DoneVideos:
        return find_rows(self, listing)

    def discard(self, names: Iterable[str]) -> None:
        self.remove_files([file.path for file in self.shards()])

    def estimate_work(self, file: StoredFile) -> Work | None:
        found = SHARD.fullmatch(file.path)
        if found is None or found["task"] == JOINED:
            return None
        frame = self.dim * (2 if self.dtype == "float16" else 4) + 8  # with its time
        return Work(int(found["rows"]), file.size / frame)

    def shards(self) -> Iterator[StoredFile]:
        """All shards; raises as :meth:`files`."""
        return (file for file in self.files() if SHARD.fullmatch(file.path))

    def shards_by_task(self, group: str) -> list[str]:
        """The shards that a group, by its key, has put."""
        self._fs.invalidate_cache(self._root)
        protocol = self._fs.protocol
        if BY_PREFIX & ({protocol} if isinstance(protocol, str) else {*protocol}):
            found = self._fs.find(self._root, prefix=group)
        else:
            found = self._fs.ls(self._root, detail=False)
        names = [path.rstrip("/").rpartition("/")[2] for path in found]
        return [name for name in names if name.startswith(group) and SHARD.fullmatch(name)]


class ShardWriter:
    """Puts the rows of one group into shards."""

    buffer_bytes = BUFFER_BYTES
    buffer_s = BUFFER_S
    max_bytes = MAX_BYTES

    def __init__(
        self, folder: ShardFolder, videos: Sequence[str], extra_columns: pa.Table | None
    ) -> None:
        self._folder = folder
        self._extra_columns = extra_columns
        self._task_key = names_key(map(row_name, videos))
        self._before: dict[str, int] | None = None

    def saved_before(self, video: str) -> int | None:
        if self._before is None:
            self._before = frames_by_video(
                self._folder, partial(self._folder.shards_by_task, self._task_key)
            )
        return self._before.get(row_name(video))

    def save(self, rows: Sequence[Row]) -> None:
        extra_columns = self._extra_columns
        schema = shard_schema(
            extra_columns and extra_columns.schema, self._folder.dim, self._folder.dtype
        )
        name = shard_name(self._task_key, [row_name(row.video) for row in rows])
        size = sum(row.extraction.clip.nbytes for row in rows)
        self._folder.put_shard(name, size, schema, lambda: row_tables(rows, extra_columns, schema))


def shard_damage(folder: ShardFolder, file: str) -> str | None:
    """What is wrong with a shard, read to its end; None where nothing is, or where it is gone."""
    schema = shard_schema(None, folder.dim, folder.dtype)
    try:
        return read_shard(folder, file, partial(find_damage, schema=schema))
    except FileNotFoundError:
        return None
    except (Damaged, RayclipError) as error:
        return str(error)
