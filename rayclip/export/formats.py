"""The formats of exports, by name."""

from __future__ import annotations

from rayclip.export.format import Format


def open_format(name: str) -> Format:
    """Return the format of this name.

    Raises:
        UsageError: it needs a package that is missing.
    """
    if name == "npz":
        from rayclip.export.npz import NpzFormat

        return NpzFormat()
    if name == "hdf5":
        from rayclip.export.hdf5 import Hdf5Format

        return Hdf5Format()
    if name == "frames-parquet":
        from rayclip.export.frames_parquet import FramesParquetFormat

        return FramesParquetFormat()
    from rayclip.export.webdataset import WebDatasetFormat

    return WebDatasetFormat()
