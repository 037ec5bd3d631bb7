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
from rayclip.output.shard_names import JOINED, SHARD, key_of, row_name, shard_name
from rayclip.output.shard_reading import find_rows, frames_by_video, read_shard
from rayclip.output.shard_tables import schema_of, tables_of, why_not_sound, write_tables
from rayclip.output.stored_arrays import DamagedContent

GATHERED_BYTES = 64 * 2**20
GATHERED_S = 60.0
MAX_BYTES = 256 * 2**20  # of a row: five times as much memory to write, and eight as float16
BY_PREFIX = {"s3", "s3a", "gs", "gcs"}  # storages that list by the beginning of names


class ShardFolder(FeatureFolder):
    """A folder with a row for each video, in shards that are named by what they hold."""

    unit = "shard"
    goes_together = True

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
        self.take_away([file.path for file in self.shards()])

    def work_in(self, file: StoredFile) -> Work | None:
        found = SHARD.fullmatch(file.path)
        if found is None or found["group"] == JOINED:
            return None
        frame = self.dim * (2 if self.dtype == "float16" else 4) + 8  # with its time
        return Work(int(found["rows"]), file.size / frame)

    def shards(self) -> Iterator[StoredFile]:
        """All shards; raises as :meth:`files`."""
        return (file for file in self.files() if SHARD.fullmatch(file.path))

    def shards_of(self, group: str) -> list[str]:
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

    gathers_bytes = GATHERED_BYTES
    gathers_s = GATHERED_S
    largest_bytes = MAX_BYTES

    def __init__(
        self, folder: ShardFolder, videos: Sequence[str], extra_columns: pa.Table | None
    ) -> None:
        self._folder = folder
        self._carried = extra_columns
        self._group = key_of(map(row_name, videos))
        self._before: dict[str, int] | None = None

    def saved_before(self, video: str) -> int | None:
        if self._before is None:
            self._before = frames_by_video(
                self._folder, partial(self._folder.shards_of, self._group)
            )
        return self._before.get(row_name(video))

    def save(self, rows: Sequence[Row]) -> None:
        extra_columns = self._carried
        schema = schema_of(
            extra_columns and extra_columns.schema, self._folder.dim, self._folder.dtype
        )
        name = shard_name(self._group, [row_name(row.video) for row in rows])
        size = sum(row.extraction.clip.nbytes for row in rows)
        self._folder.put_shard(name, size, schema, lambda: tables_of(rows, extra_columns, schema))


def trouble_of(folder: ShardFolder, file: str) -> str | None:
    """What is wrong with a shard, read to its end; None where nothing is, or where it is gone."""
    schema = schema_of(None, folder.dim, folder.dtype)
    try:
        return read_shard(folder, file, partial(why_not_sound, schema=schema))
    except FileNotFoundError:
        return None
    except (DamagedContent, RayclipError) as error:
        return str(error)
