"""Features as a ``.npy`` file inside an archive, block by block."""

from __future__ import annotations

import io
from typing import IO

import numpy as np

from rayclip.export.videos import ExportedVideo


def npy_header(video: ExportedVideo) -> bytes:
    """Return the header of the ``.npy`` file of a video's exported features."""
    header = io.BytesIO()
    array = {"descr": video.dtype.str, "fortran_order": False, "shape": video.shape}
    np.lib.format.write_array_header_1_0(header, array)
    return header.getvalue()


def write_features(file: IO[bytes], video: ExportedVideo) -> None:
    """Write the ``.npy`` file of a video's exported features."""
    file.write(npy_header(video))
    for block in video.blocks():
        file.write(block.data)
