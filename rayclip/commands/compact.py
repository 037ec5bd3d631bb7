"""``rayclip compact``: join small shards into large ones and drop duplicate rows.

A new shard is written before the shards that it replaces are deleted. If the command is killed, no
video is lost. A video may then be in two shards; readers and the next compaction drop the second.
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
from rayclip.output.array_folder import model_folder
from rayclip.output.open_run import model_folders, open_run
from rayclip.output.shard_names import JOINED, VIDEO, shard_name
from rayclip.output.shard_reading import read_hashes, read_shard
from rayclip.output.shard_tables import ROW_GROUP
from rayclip.output.shards import ShardFolder
from rayclip.output.stored_arrays import DamagedContent
from rayclip.report.progress_words import count

TARGET_SIZE = 256 * 2**20  # approximate bytes of a joined shard

Say = Callable[[str], object]


@dataclass(frozen=True)
class Source:
    """A shard, and which of its rows are kept: those that are in no earlier shard.

    Attributes:
        file: its name.
        size: its size in bytes.
        schema: the schema of its columns.
        kept: for each row, whether it is kept.
    """

    file: str
    size: int
    schema: pa.Schema
    kept: NDArray[np.bool_]

    @property
    def kept_size(self) -> float:
        """The approximate size of the rows that are kept, in bytes."""
        return self.size * float(self.kept.mean()) if len(self.kept) else 0.0


def compact(
    output_path: str, model_name: str | None, storage_options: Mapping[str, Any], say: Say
) -> None:
    """Join the small shards of an output folder.

    Args:
        output_path: the output folder of a run, or the folder of one model in it.
        model_name: the only model whose shards are joined; None for all models.
        storage_options: passed to fsspec.
        say: called with a line for each model.

    Raises:
        UsageError: the folder has no shards.
        RunStopped: a shard cannot be read or written; nothing is lost.
    """
    if model_name is not None:
        output_path = model_folder(output_path, model_name)
    has_shards = False
    for url in model_folders(output_path, storage_options):
        folder = open_run(url, storage_options).folder
        if isinstance(folder, ShardFolder):
            has_shards = True
            say(compact_folder(folder))
        else:
            say(f"{shown(url)}: unchanged, because it has one {folder.unit} per video")
    if not has_shards:
        raise UsageError(
            f"There are no shards in {output_path}; --on-extraction save_parquet writes them."
        )


def compact_folder(folder: ShardFolder) -> str:
    """Join small shards and drop duplicate rows; return a sentence that says what was done.

    Raises:
        RunStopped: a shard cannot be read or written; nothing is lost.
    """
    try:
        sources = _sources(folder)
        for group in plan_joins(sources):
            _join(folder, group)
    except FileNotFoundError:
        raise RunStopped(
            f"The shards of {folder.url} changed during the command, for example because another "
            "compact is running: nothing is lost; rerun this command when the other has ended."
        ) from None
    except DamagedContent as error:
        raise RunStopped(f"{folder.url} has a damaged shard: {error}") from error
    duplicates = sum(int(np.count_nonzero(~source.kept)) for source in sources)
    rows = sum(len(source.kept) for source in sources) - duplicates
    now = sum(1 for _ in folder.feature_files())
    dropped = f", {duplicates:,} duplicate rows dropped" if duplicates else ""
    before = f"{count(len(sources), 'shard')} {'is' if len(sources) == 1 else 'are'} now {now:,}"
    return f"{shown(folder.url)}: {count(rows, 'video')}, {before}{dropped}"


def plan_joins(sources: Iterable[Source]) -> Iterator[list[Source]]:
    """Groups of shards to be joined into one: small shards, and those with rows to drop."""
    groups: dict[str, list[Source]] = {}
    for source in sources:
        if source.size >= TARGET_SIZE / 2:
            if not source.kept.all():
                yield [source]
            continue
        columns = str(source.schema)
        group = groups.setdefault(columns, [])
        if group and sum(other.kept_size for other in group) + source.kept_size > TARGET_SIZE:
            yield group
            group = groups[columns] = []
        group.append(source)
    for group in groups.values():
        if len(group) > 1 or not all(source.kept.all() for source in group):
            yield group


def _sources(folder: ShardFolder) -> list[Source]:
    """All shards, by their priority in keeping a row.

    Large shards come first, then those joined earlier, then the others by name. So the leftovers
    of a killed command are recognized as duplicates.
    """
    files = sorted(
        folder.feature_files(),
        key=lambda f: (f.size < TARGET_SIZE / 2, not f.path.startswith(JOINED), f.path),
    )
    seen: set[int] = set()
    sources = []
    for file in files:
        schema, hashes = read_shard(folder, file.path, _schema_and_hashes)
        kept = np.ones(len(hashes), np.bool_)
        for row, name in enumerate(hashes):
            kept[row] = name not in seen
            seen.add(name)
        sources.append(Source(file.path, file.size, schema, kept))
    return sources


def _schema_and_hashes(shard: pq.ParquetFile) -> tuple[pa.Schema, list[int]]:
    return shard.schema_arrow, read_hashes(shard).hashes.tolist()


def _join(folder: ShardFolder, group: list[Source]) -> None:
    kept = (read_shard(folder, source.file, partial(_kept_names, source)) for source in group)
    names = [name for shard_names in kept for name in shard_names]
    joined = shard_name(JOINED, names)
    old = [source.file for source in group if source.file != joined]
    if names and len(old) == len(group):  # otherwise the joined shard exists already
        size = int(sum(source.kept_size for source in group))
        try:
            folder.put_shard(joined, size, group[0].schema, lambda: _row_groups(folder, group))
        except (RunStopped, FileNotFoundError, DamagedContent):
            raise
        except Exception as error:  # each storage raises its own exceptions
            raise RunStopped(
                f"{folder.url}/{joined} cannot be written: {reason(error)}."
            ) from error
    folder.remove_files(old)


def _kept_names(source: Source, shard: pq.ParquetFile) -> list[str]:
    names = shard.read(columns=[VIDEO]).column(VIDEO).to_pylist()
    return [name for name, is_kept in zip(names, source.kept, strict=True) if is_kept]


def _row_groups(folder: ShardFolder, group: list[Source]) -> Iterator[pa.Table]:
    """The kept rows, in row groups of about :data:`ROW_GROUP` bytes."""
    tables: list[pa.Table] = []
    for source in group:
        offset = 0
        row_groups = read_shard(folder, source.file, _count_row_groups)
        for number in range(row_groups):
            table = read_shard(folder, source.file, partial(_read_row_group, number))
            is_kept = source.kept[offset : offset + table.num_rows]
            offset += table.num_rows
            kept = table if is_kept.all() else table.filter(pa.array(is_kept))
            if tables and sum(t.nbytes for t in tables) + kept.nbytes > ROW_GROUP:
                yield pa.concat_tables(tables)
                tables = []
            if kept.num_rows:
                tables.append(kept)
    if tables:
        yield pa.concat_tables(tables)


def _count_row_groups(shard: pq.ParquetFile) -> int:
    return int(shard.num_row_groups)


def _read_row_group(number: int, shard: pq.ParquetFile) -> pa.Table:
    return shard.read_row_group(number)
