"""``rayclip status --verify``: find damaged files. Their contents are never executed."""

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
from rayclip.output.stored_arrays import Damaged, StoredArray
from rayclip.output.video_files import DamagedFile, read_video


class Damage(NamedTuple):
    """A damaged file, and what is wrong with it."""

    file: str
    reason: str


def verify(recorded: RecordedRun) -> Iterator[Damage | None]:
    """Open every feature file and its companion files.

    Memory is bounded for ``.npy`` files of any content. A ``.pkl`` file is held in memory twice, up
    to :data:`~rayclip.io.concurrent_map.THREADS` files at once; of a shard, one row group is.

    Yields:
        The first damage of each video, or None; a damaged shard counts once.

    Raises:
        UsageError: the folder cannot be listed.
    """
    if isinstance(recorded.folder, ShardFolder):
        yield from _verify_shards(recorded.folder)
        return
    endings = tuple(FEATURES + suffix for suffix in SUFFIXES)
    files = (file.path for file in recorded.folder.files() if file.path.endswith(endings))
    yield from concurrent_map(partial(_find_damage, recorded), files)


def _verify_shards(folder: ShardFolder) -> Iterator[Damage | None]:
    for file in folder.shards():
        trouble = trouble_of(folder, file.path)
        if trouble:
            yield Damage(file.path, trouble)
        else:
            yield from repeat(None, rows_of(file.path))


def _find_damage(recorded: RecordedRun, features: str) -> Damage | None:
    """The damage of a video, given its feature file; None also if that file is gone."""
    try:
        read_video(recorded, features, _check_finite)
    except DamagedFile as error:
        return Damage(error.file, error.reason)
    return None


def _check_finite(array: StoredArray) -> None:
    """Read an array to its end; its numbers must be finite, except a scalar frame rate."""
    for block in array.blocks:
        # a video may not know its frame rate
        if array.shape and not np.isfinite(block).all():
            raise Damaged("not all of its numbers are finite")
