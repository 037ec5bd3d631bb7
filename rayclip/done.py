"""Which videos of an output folder are done, as its listing tells."""

from __future__ import annotations

import hashlib
import os
import time
from array import array
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from rayclip.formats import SUFFIXES, FileFormat
from rayclip.listing import StoredFile
from rayclip.shard_names import SHARD
from rayclip.whole_files import LEFT_OVER, is_left_over

FEATURES = "_clip"
TIMESTAMPS = "_timestamps_ms"
FPS = "_fps"
HASHES_AT_A_TIME = 2**20  # so that looking many up takes no memory to speak of


class DoneVideos:
    """Which videos of a folder are complete.

    Attributes:
        hashes: of their names, in ascending order.
        frames: of all of them together.
        begun: hashes of the names of all that have features, in any form and state.
        not_whole: how many files of features are damaged, or lack what goes with them.
        leftovers: temporary files of runs that are no more, and files that nobody can read.
        foreign: a file of features that has another form than this folder's; None without any.
    """

    def __init__(
        self,
        hashes: NDArray[np.uint64],
        frames: int,
        begun: NDArray[np.uint64],
        not_whole: int = 0,
        leftovers: Sequence[str] = (),
        foreign: str | None = None,
    ) -> None:
        self.hashes = hashes
        self.frames = frames
        self.begun = begun
        self.not_whole = not_whole
        self.leftovers = leftovers
        self.foreign = foreign

    def __len__(self) -> int:
        return len(self.hashes)

    def __contains__(self, name: str) -> bool:
        return self._place_of(name) is not None

    def _place_of(self, name: str) -> int | None:
        wanted = np.uint64(name_hash(name))
        place = int(np.searchsorted(self.hashes, wanted))
        return place if place < len(self.hashes) and self.hashes[place] == wanted else None


class DoneFiles(DoneVideos):
    """Complete videos whose files tell the number of frames of each, as 16 bytes a video.

    Attributes:
        others: how many features files have another suffix.
    """

    def __init__(
        self,
        hashes: NDArray[np.uint64],
        frames: NDArray[np.uint64],
        begun: NDArray[np.uint64],
        not_whole: int,
        leftovers: Sequence[str],
        foreign: str | None,
        others: int,
    ) -> None:
        super().__init__(hashes, int(frames.sum()), begun, not_whole, leftovers, foreign)
        self._frames = frames
        self.others = others

    def frames_of(self, name: str) -> int | None:
        """The number of frames of a complete video; None where it is not complete."""
        place = self._place_of(name)
        return None if place is None else int(self._frames[place])


def find_done(
    files: Iterable[StoredFile],
    file_format: FileFormat,
    dim: int,
) -> DoneFiles:
    """Find every complete video: its files are all there, and their sizes agree.

    Args:
        files: in the folder.
        file_format: of the arrays that count.
        dim: features per frame.
    """
    fps, begun = array("Q"), array("Q")
    timestamps, features = (array("Q"), array("Q")), (array("Q"), array("Q"))
    fps_size = file_format.size((), "float64")
    leftovers = []
    foreign = None
    now = time.time()
    for stored in files:
        file, size, _ = stored
        if file.endswith(LEFT_OVER):
            if is_leftover(stored, now):
                leftovers.append(file)
            continue
        if SHARD.fullmatch(file):
            foreign = file
        name, suffix = os.path.splitext(file)
        if suffix not in SUFFIXES or not name.endswith((FEATURES, TIMESTAMPS, FPS)):
            continue
        ours = suffix == file_format.suffix
        if name.endswith(FEATURES):
            hashed = name_hash(name.removesuffix(FEATURES))
            begun.append(hashed)
            if ours:
                features[0].append(hashed)
                features[1].append(size)
        elif ours and name.endswith(TIMESTAMPS):
            if rows := file_format.timestamps_rows(size):
                timestamps[0].append(name_hash(name.removesuffix(TIMESTAMPS)))
                timestamps[1].append(rows)
        elif ours and size == fps_size:
            fps.append(name_hash(name.removesuffix(FPS)))
    both, in_timestamps, in_features = np.intersect1d(
        _numbers(timestamps[0]), _numbers(features[0]), return_indices=True
    )
    frames = _numbers(timestamps[1])[in_timestamps]
    rows_of, place = np.unique(frames, return_inverse=True)
    sizes = np.array([file_format.features_size(int(rows), dim) for rows in rows_of], np.uint64)
    whole = _numbers(features[1])[in_features] == sizes[place]
    whole &= is_in(both, np.sort(_numbers(fps)))
    not_whole = len(features[0]) - int(np.count_nonzero(whole))
    others = len(begun) - len(features[0])
    return DoneFiles(
        both[whole], frames[whole], _numbers(begun), not_whole, leftovers, foreign, others
    )


def is_leftover(file: StoredFile, now: float) -> bool:
    """Whether a file is a temporary one of a run that is no more; ``now`` is in s since 1970."""
    name, modified = file.path.rpartition("/")[2], file.modified
    return modified is not None and is_left_over(name, now - modified)


def is_in(hashes: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Of each hash, whether it is one of those known, which are in ascending order."""
    found = np.zeros(len(hashes), np.bool_)
    for start in range(0, len(hashes) if len(known) else 0, HASHES_AT_A_TIME):
        part = hashes[start : start + HASHES_AT_A_TIME]
        places = np.minimum(np.searchsorted(known, part), len(known) - 1)
        found[start : start + HASHES_AT_A_TIME] = known[places] == part
    return found


def name_hash(name: str) -> int:
    """64 bits of a name, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=8).digest(), "little")


def _numbers(values: array[int]) -> NDArray[np.uint64]:
    return np.frombuffer(values, np.uint64)
