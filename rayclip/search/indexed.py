"""Search through an index: it chooses the videos, and their features give the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayclip.io.listing import StoredFile
from rayclip.output.folder import FeatureFolder
from rayclip.output.rows import ScannedVideo
from rayclip.output.video_files import DamagedFile
from rayclip.search.curves import Curve, Scan, compare
from rayclip.search.index import FrameIndex
from rayclip.search.moments import Found, Query, best_moments

FRAMES_PER_MOMENT = 64  # looked up for each moment, since neighbours are about as good


@dataclass(frozen=True)
class Coverage:
    """What an index covers of a folder.

    Attributes:
        new: the files of features that it does not cover, which are read.
    """

    new: list[str]


def coverage(index: FrameIndex, folder: FeatureFolder) -> Coverage | None:
    """Return what an index covers; None if files of it are gone or have changed."""
    listing: dict[str, StoredFile] = {file.path: file for file in folder.feature_files()}
    if not index.covers(listing):
        return None
    return Coverage(sorted(listing.keys() - {file.file for file in index.files}))


def indexed_moments(
    index: FrameIndex,
    covered: Coverage,
    folder: FeatureFolder,
    queries: Sequence[Query],
    top: int,
) -> Found:
    """Search a folder through its index; what the index does not cover is read.

    Arguments and result are those of :func:`~rayclip.search.moments.moments`; of the files that the
    index covers, only those that it finds are read. Scores are exact.
    """
    damaged: list[DamagedFile] = []
    vectors = np.stack([query.vector for query in queries])
    chosen = [
        file
        for query in queries
        for file in index.nearest_files(query.vector, top * FRAMES_PER_MOMENT)[0]
    ]
    found = _scan_files(folder, list(dict.fromkeys(chosen)), damaged)
    new = compare(_scan_files(folder, covered.new, damaged), vectors, top, damaged)
    curves = compare(found, vectors, top, damaged).curves
    scan = _of_all(index, new, vectors, curves)
    return Found(best_moments(scan, queries, top), scan.videos, scan.frames, damaged)


def _of_all(
    index: FrameIndex, new: Scan, vectors: NDArray[np.float32], curves: list[list[Curve]]
) -> Scan:
    """Return the comparison of all frames, with these curves and those of new videos."""
    frames = index.frames + new.frames
    total = vectors @ index.total + new.mean * new.frames
    squares = np.einsum("qd,de,qe->q", vectors, index.products, vectors)
    squares = squares + (new.deviation**2 + new.mean**2) * new.frames
    mean = total / max(frames, 1)
    deviation = np.sqrt(np.maximum(squares / max(frames, 1) - mean**2, 0.0))
    videos = sum(file.videos for file in index.files) + new.videos
    every = [[*some, *others] for some, others in zip(curves, new.curves, strict=True)]
    return Scan(videos, frames, mean, deviation, every, new.damaged)


def _scan_files(
    folder: FeatureFolder, files: Sequence[str], damaged: list[DamagedFile]
) -> Iterator[ScannedVideo]:
    for file in files:
        try:
            yield from folder.scan_file(file)
        except FileNotFoundError:  # removed meanwhile
            continue
        except DamagedFile as error:
            damaged.append(error)
