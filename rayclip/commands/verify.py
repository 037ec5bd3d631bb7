"""Open every file of an output folder and find the damaged ones; what is in them is only data."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import repeat
from typing import NamedTuple

import numpy as np

from rayclip.io.concurrent_map import concurrent_map
from rayclip.output.done import FEATURES
from rayclip.output.formats import SUFFIXES
from rayclip.output.open_run import RecordedRun
from rayclip.output.shard_names import rows_of
from rayclip.output.shards import ShardFolder, trouble_of
from rayclip.output.stored_arrays import DamagedContent, StoredArray
from rayclip.output.video_files import DamagedFile, read_video


class Damage(NamedTuple):
    """A file of a folder, and what is wrong with it."""

    file: str
    reason: str


def verify(recorded: RecordedRun) -> Iterator[Damage | None]:
    """Open every file of features, and those that go with it.

    Memory is bounded for ``.npy``, whatever they hold. A ``.pkl`` is in memory as a whole, twice,
    and up to :data:`~rayclip.io.concurrent_map.THREADS` are read at once. Of a shard, one row group
    is in memory.

    Yields:
        For each video the first damage that was found, or None; one damage for a whole shard.

    Raises:
        UsageError: the folder cannot be listed.
    """
    if isinstance(recorded.folder, ShardFolder):
        yield from _verify_shards(recorded.folder)
        return
    endings = tuple(FEATURES + suffix for suffix in SUFFIXES)
    files = (file.path for file in recorded.folder.files() if file.path.endswith(endings))
    yield from concurrent_map(partial(_damage_of, recorded), files)


def _verify_shards(folder: ShardFolder) -> Iterator[Damage | None]:
    for file in folder.shards():
        trouble = trouble_of(folder, file.path)
        if trouble:
            yield Damage(file.path, trouble)
        else:
            yield from repeat(None, rows_of(file.path))


def _damage_of(recorded: RecordedRun, features: str) -> Damage | None:
    """What is wrong with a video, given its features file; None also where that is gone."""
    try:
        read_video(recorded, features, _expect_numbers)
    except DamagedFile as error:
        return Damage(error.file, error.reason)
    return None


def _expect_numbers(array: StoredArray) -> None:
    """Read an array to its end."""
    for block in array.blocks:
        # a video need not tell its rate
        if array.shape and not np.isfinite(block).all():
            raise DamagedContent("not all of its numbers are finite")
