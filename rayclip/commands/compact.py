"""``rayclip compact``: small shards become large ones, and each video is there once.

A new shard is put before those that it replaces go. Whatever is killed when, every video is in some
shard; where that leaves one in two, whoever reads or compacts next drops the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rayclip.console import shown
from rayclip.errors import RunStopped, UsageError
from rayclip.io.storage_errors import reason
from rayclip.output.open_run import model_folders, open_run
from rayclip.output.shard_names import JOINED, VIDEO, shard_name
from rayclip.output.shard_reading import look_at, read_shard
from rayclip.output.shard_tables import ROW_GROUP
from rayclip.output.shards import ShardFolder
from rayclip.output.storage import model_folder
from rayclip.output.stored_arrays import DamagedContent

LARGE = 256 * 2**20  # bytes of a shard that others are joined into, about

Say = Callable[[str], object]


@dataclass(frozen=True)
class Source:
    """A shard, and which of its rows are in no shard before it.

    Attributes:
        file: its name.
        size: in bytes.
        schema: of its columns.
        first: of each row, whether it is to be kept.
    """

    file: str
    size: int
    schema: pa.Schema
    first: NDArray[np.bool_]

    @property
    def kept_size(self) -> float:
        """Bytes of what is to be kept, about."""
        return self.size * float(self.first.mean()) if len(self.first) else 0.0


def compact(
    output_path: str, model_name: str | None, storage_options: Mapping[str, Any], say: Say
) -> None:
    """Join the small shards of an output folder.

    Args:
        output_path: of a run, or the folder of one model in it.
        model_name: the only model whose shards are joined; None takes all.
        storage_options: given to fsspec.
        say: takes a line for each model.

    Raises:
        UsageError: there are no shards there.
        RunStopped: they cannot be read or written any more; nothing is lost.
    """
    if model_name is not None:
        output_path = model_folder(output_path, model_name)
    are_there = False
    for url in model_folders(output_path, storage_options):
        folder = open_run(url, storage_options).folder
        if isinstance(folder, ShardFolder):
            are_there = True
            say(compact_folder(folder))
        else:
            say(f"{shown(url)}: left as it is, for it has a {folder.unit} for each video")
    if not are_there:
        raise UsageError(f"There are no shards in {output_path}: save_parquet makes them.")


def compact_folder(folder: ShardFolder) -> str:
    """Join what is small and drop what is there twice; a sentence about it.

    Raises:
        RunStopped: a shard cannot be read or written; nothing is lost.
    """
    try:
        sources = _sources(folder)
        for group in plan_joins(sources):
            _join(folder, group)
    except FileNotFoundError:
        raise RunStopped(
            f"The shards of {folder.url} were changed meanwhile, as by another compact: nothing is "
            "lost; give the same command again when that has ended."
        ) from None
    except DamagedContent as error:
        raise RunStopped(f"{folder.url} has a damaged shard: {error}") from error
    twice = sum(int(np.count_nonzero(~source.first)) for source in sources)
    rows = sum(len(source.first) for source in sources) - twice
    now = sum(1 for _ in folder.shards())
    dropped = f", {twice:,} rows that were there twice dropped" if twice else ""
    return f"{shown(folder.url)}: {rows:,} videos, {len(sources):,} shards are now {now:,}{dropped}"


def plan_joins(sources: Iterable[Source]) -> Iterator[list[Source]]:
    """Groups of shards, each of which is to become one: small ones, and those with rows to drop."""
    groups: dict[str, list[Source]] = {}
    for source in sources:
        if source.size >= LARGE / 2:
            if not source.first.all():
                yield [source]
            continue
        columns = str(source.schema)
        group = groups.setdefault(columns, [])
        if group and sum(one.kept_size for one in group) + source.kept_size > LARGE:
            yield group
            group = groups[columns] = []
        group.append(source)
    for group in groups.values():
        if len(group) > 1 or not all(source.first.all() for source in group):
            yield group


def _sources(folder: ShardFolder) -> list[Source]:
    """All shards in the order in which they keep their rows: large ones, those that were joined
    before, and the others by their names, so that what a killed command left is recognised."""
    files = sorted(
        folder.shards(), key=lambda f: (f.size < LARGE / 2, not f.path.startswith(JOINED), f.path)
    )
    known: set[int] = set()
    sources = []
    for file in files:
        schema, hashes = read_shard(folder, file.path, _schema_and_hashes)
        first = np.ones(len(hashes), np.bool_)
        for place, name in enumerate(hashes):
            first[place] = name not in known
            known.add(name)
        sources.append(Source(file.path, file.size, schema, first))
    return sources


def _schema_and_hashes(shard: pq.ParquetFile) -> tuple[pa.Schema, list[int]]:
    return shard.schema_arrow, look_at(shard).hashes.tolist()


def _join(folder: ShardFolder, group: list[Source]) -> None:
    kept = (read_shard(folder, source.file, partial(_kept, source)) for source in group)
    names = [name for of_one in kept for name in of_one]
    joined = shard_name(JOINED, names)
    old = [source.file for source in group if source.file != joined]
    if names and len(old) == len(group):  # else it is there already
        size = int(sum(source.kept_size for source in group))
        try:
            folder.put_shard(joined, size, group[0].schema, lambda: _row_groups(folder, group))
        except (RunStopped, FileNotFoundError, DamagedContent):
            raise
        except Exception as error:  # each storage has exceptions of its own
            what = f"{folder.url}/{joined} cannot be written"
            raise RunStopped(f"{what}: {reason(error)}.") from error
    folder.take_away(old)


def _kept(source: Source, shard: pq.ParquetFile) -> list[str]:
    names = shard.read(columns=[VIDEO]).column(VIDEO).to_pylist()
    return [name for name, first in zip(names, source.first, strict=True) if first]


def _row_groups(folder: ShardFolder, group: list[Source]) -> Iterator[pa.Table]:
    """The rows that are kept, in row groups of about :data:`ROW_GROUP` bytes."""
    tables: list[pa.Table] = []
    for source in group:
        done = 0
        groups = read_shard(folder, source.file, _count_row_groups)
        for number in range(groups):
            table = read_shard(folder, source.file, partial(_row_group, number))
            first = source.first[done : done + table.num_rows]
            done += table.num_rows
            kept = table if first.all() else table.filter(pa.array(first))
            if tables and sum(t.nbytes for t in tables) + kept.nbytes > ROW_GROUP:
                yield pa.concat_tables(tables)
                tables = []
            if kept.num_rows:
                tables.append(kept)
    if tables:
        yield pa.concat_tables(tables)


def _count_row_groups(shard: pq.ParquetFile) -> int:
    return int(shard.num_row_groups)


def _row_group(number: int, shard: pq.ParquetFile) -> pa.Table:
    return shard.read_row_group(number)
