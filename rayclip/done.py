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
from rayclip.whole_files import LEFT_OVER, is_left_over

FEATURES = "_clip"
TIMESTAMPS = "_timestamps_ms"
FPS = "_fps"


class DoneVideos:
    """Which videos of a folder are complete, as 16 bytes each.

    Attributes:
        hashes: of their names, in ascending order.
        frames: of all of them together.
        begun: hashes of the names of all that have a features file, in any format and state.
        leftovers: temporary files of runs that are no more.
    """

    def __init__(
        self,
        hashes: NDArray[np.uint64],
        frames: NDArray[np.uint64],
        begun: NDArray[np.uint64],
        leftovers: Sequence[str] = (),
    ) -> None:
        self.hashes = hashes
        self._frames = frames
        self.frames = int(frames.sum())
        self.begun = begun
        self.leftovers = leftovers

    def __len__(self) -> int:
        return len(self.hashes)

    def frames_of(self, name: str) -> int | None:
        """The number of frames of a complete video; None where it is not complete."""
        wanted = np.uint64(name_hash(name))
        place = int(np.searchsorted(self.hashes, wanted))
        if place == len(self.hashes) or self.hashes[place] != wanted:
            return None
        return int(self._frames[place])


def find_done(
    files: Iterable[StoredFile],
    file_format: FileFormat,
    dim: int,
) -> DoneVideos:
    """Find every complete video: its files are all there, and their sizes agree.

    Args:
        files: in the folder.
        file_format: of the arrays that count.
        dim: features per frame.
    """
    found = {kind: (array("Q"), array("Q")) for kind in (FPS, TIMESTAMPS, FEATURES)}
    begun = array("Q")
    leftovers = []
    now = time.time()
    for file, size, modified in files:
        if file.endswith(LEFT_OVER):
            if modified is not None and is_left_over(file.rpartition("/")[2], now - modified):
                leftovers.append(file)
            continue
        for suffix in SUFFIXES:
            if file.endswith(FEATURES + suffix):
                begun.append(name_hash(file.removesuffix(FEATURES + suffix)))
        for kind, (hashes, sizes) in found.items():
            if file.endswith(kind + file_format.suffix):
                hashes.append(name_hash(file.removesuffix(kind + file_format.suffix)))
                sizes.append(size)
    fps, timestamps, features = (
        (np.frombuffer(hashes, np.uint64), np.frombuffer(sizes, np.uint64))
        for hashes, sizes in found.values()
    )
    both, in_timestamps, in_features = np.intersect1d(
        timestamps[0], features[0], return_indices=True
    )
    frames = np.array(
        [file_format.timestamps_rows(int(size)) or 0 for size in timestamps[1][in_timestamps]],
        np.uint64,
    )
    expected = [file_format.features_size(int(rows), dim) for rows in frames]
    whole = (frames > 0) & (features[1][in_features] == np.array(expected, np.uint64))
    whole &= np.isin(both, fps[0][fps[1] == file_format.size((), "float64")])
    begun_hashes = np.frombuffer(begun, np.uint64)
    return DoneVideos(both[whole], frames[whole], begun_hashes, leftovers)


def name_hash(name: str) -> int:
    """64 bits of a name, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=8).digest(), "little")
