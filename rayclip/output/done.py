"""Find the complete videos of an output folder from its listing."""

from __future__ import annotations

import hashlib
import os
import time
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayclip.io.atomic_write import TMP_SUFFIX, is_stale_tmp
from rayclip.io.listing import StoredFile
from rayclip.output.formats import SUFFIXES, FileFormat
from rayclip.output.shard_names import SHARD

FEATURES = "_clip"
TIMESTAMPS = "_timestamps_ms"
FPS = "_fps"
LOOKUP_BLOCK = 2**20  # hashes looked up at a time, to bound temporary arrays


@dataclass(frozen=True, eq=False)
class DoneVideos:
    """The complete videos of a folder.

    Attributes:
        hashes: hashes of their names, in ascending order.
        frames: the number of frames of all complete videos.
        started: hashes of the names of all videos with features, in any format and state.
        incomplete: the number of features files that are damaged or lack their companion files.
        stale_tmp: temporary files of runs that have ended, and unreadable files.
        other_format: a features file in another format than this folder's; None if there is none.
        others: the number of features files with another suffix.
    """

    hashes: NDArray[np.uint64]
    frames: int
    started: NDArray[np.uint64]
    incomplete: int = 0
    stale_tmp: Sequence[str] = ()
    other_format: str | None = None
    others: int = 0

    def __len__(self) -> int:
        return len(self.hashes)

    def __contains__(self, name: str) -> bool:
        return is_done(name, self.hashes)


def find_done(
    files: Iterable[StoredFile],
    file_format: FileFormat,
    dim: int,
) -> DoneVideos:
    """Find each video whose files all exist and have matching sizes.

    Args:
        files: the files of the folder.
        file_format: the format of the arrays; videos in another one are not complete.
        dim: features per frame.
    """
    fps, started = array("Q"), array("Q")
    timestamps, features = (array("Q"), array("Q")), (array("Q"), array("Q"))
    stale_tmp = []
    other_format = None
    now = time.time()
    for stored in files:
        file, size, _ = stored
        if file.endswith(TMP_SUFFIX):
            if is_stale_tmp_file(stored, now):
                stale_tmp.append(file)
            continue
        if SHARD.fullmatch(file):
            other_format = file
        name, suffix = os.path.splitext(file)
        if suffix not in SUFFIXES or not name.endswith((FEATURES, TIMESTAMPS, FPS)):
            continue
        ours = suffix == file_format.suffix
        if name.endswith(FEATURES):
            hashed = name_hash(name.removesuffix(FEATURES))
            started.append(hashed)
            if ours:
                features[0].append(hashed)
                features[1].append(size)
        elif ours and name.endswith(TIMESTAMPS):
            timestamps[0].append(name_hash(name.removesuffix(TIMESTAMPS)))
            timestamps[1].append(size)
        elif ours and file_format.is_fps(size):
            fps.append(name_hash(name.removesuffix(FPS)))
    both, in_timestamps, in_features = np.intersect1d(
        _numbers(timestamps[0]), _numbers(features[0]), return_indices=True
    )
    frames = file_format.frames(
        _numbers(features[1])[in_features].astype(np.int64),
        _numbers(timestamps[1])[in_timestamps].astype(np.int64),
        dim,
    )
    whole = (frames > 0) & is_in(both, np.sort(_numbers(fps)))
    incomplete = len(features[0]) - int(np.count_nonzero(whole))
    others = len(started) - len(features[0])
    total = int(frames[whole].sum())
    return DoneVideos(
        both[whole], total, _numbers(started), incomplete, stale_tmp, other_format, others
    )


def is_stale_tmp_file(file: StoredFile, now: float) -> bool:
    """Whether a file is a temporary file of a run that has ended; ``now`` is in s since 1970."""
    name, modified = file.path.rpartition("/")[2], file.modified
    return modified is not None and is_stale_tmp(name, now - modified)


def is_done(name: str, known: NDArray[np.uint64]) -> bool:
    """Return whether the hash of a name is in ``known``, which is in ascending order."""
    wanted = np.uint64(name_hash(name))
    place = int(np.searchsorted(known, wanted))
    return place < len(known) and bool(known[place] == wanted)


def is_in(hashes: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return for each hash whether it is in ``known``, which is in ascending order."""
    found = np.zeros(len(hashes), np.bool_)
    for start in range(0, len(hashes) if len(known) else 0, LOOKUP_BLOCK):
        part = hashes[start : start + LOOKUP_BLOCK]
        places = np.minimum(np.searchsorted(known, part), len(known) - 1)
        found[start : start + LOOKUP_BLOCK] = known[places] == part
    return found


def name_hash(name: str) -> int:
    """Hash a name to 64 bits, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=8).digest(), "little")


def _numbers(values: array[int]) -> NDArray[np.uint64]:
    return np.frombuffer(values, np.uint64)
