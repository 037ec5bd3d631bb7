"""``npz``: a file for each video, with ``features``, ``timestamps_ms`` and ``fps``."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from functools import partial
from typing import IO

import numpy as np

from rayclip.export.format import Format, Put
from rayclip.export.npy import write_features
from rayclip.export.videos import ExportedVideo


class NpzFormat(Format):
    part_bytes = 64 * 2**20
    part_files = 100

    def write_part(self, number: int, videos: Iterator[ExportedVideo], put: Put) -> None:
        for video in videos:
            put(f"{video.key}.npz", partial(_write, video))


def _write(video: ExportedVideo, file: IO[bytes]) -> None:
    """Write one video; as with ``np.savez``, nothing is compressed."""
    others = {"timestamps_ms": video.timestamps_ms, "fps": np.float64(video.stored.fps)}
    with zipfile.ZipFile(file, "w") as archive:
        with _member(archive, "features") as member:
            write_features(member, video)
        for name, values in others.items():
            with _member(archive, name) as member:
                np.lib.format.write_array(member, np.asarray(values), allow_pickle=False)


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    info = zipfile.ZipInfo(f"{name}.npy")  # its date is fixed, so equal features make equal files
    info.external_attr = 0o644 << 16
    return archive.open(info, "w", force_zip64=True)
