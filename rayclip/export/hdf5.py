"""``hdf5``: one file with a group for each video."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import IO, Any

from rayclip.console import shown
from rayclip.errors import RunStopped, UsageError
from rayclip.export.format import Format, Put
from rayclip.export.videos import ExportedVideo
from rayclip.output.safe_names import utf8_name
from rayclip.output.shard_names import row_name

FILE = "features.h5"


class Hdf5Format(Format):
    part_bytes = None

    def __init__(self) -> None:
        """Check that h5py is there.

        Raises:
            UsageError: it is not.
        """
        try:
            import h5py  # noqa: F401
        except ImportError as error:
            raise UsageError(
                "The format hdf5 needs a package that is missing: pip install 'rayclip[hdf5]'."
            ) from error

    def write_part(self, number: int, videos: Iterator[ExportedVideo], put: Put) -> None:
        put(FILE, partial(_write, videos))


class _Recorder:
    """A file that keeps the first error of its writes, since HDF5 replaces it by its own."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return self._file.write(content)
        except OSError as error:
            self.error = self.error or error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _write(videos: Iterator[ExportedVideo], file: IO[bytes]) -> None:
    recorder = _Recorder(file)
    try:
        _write_groups(videos, recorder)
    except OSError as error:
        if recorder.error is None:
            raise
        raise recorder.error from error


def _write_groups(videos: Iterator[ExportedVideo], file: Any) -> None:
    import h5py

    with h5py.File(file, "w") as target:
        for video in videos:
            try:
                group = target.create_group(utf8_name(video.key))
            except ValueError as error:  # a/features is a dataset of the video a
                raise RunStopped(
                    f"{shown(video.stored.name)} cannot be a group of an HDF5 file next to the "
                    "videos before it: use the format npz."
                ) from error
            group.attrs["video"] = row_name(video.stored.name)
            features = group.create_dataset("features", video.shape, video.dtype)
            done = 0
            for block in video.blocks():
                features[done : done + len(block)] = block
                done += len(block)
            group["timestamps_ms"] = video.timestamps_ms
            group["fps"] = video.stored.fps
