"""Output folders with three files for each video: names, atomic commits, complete videos."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from rayclip.io.concurrent_map import concurrent_map
from rayclip.io.listing import StoredFile
from rayclip.io.retry import with_retry
from rayclip.io.storage_errors import is_transient
from rayclip.model.zeroshot import predictions_csv
from rayclip.output.done import FEATURES, FPS, TIMESTAMPS, DoneVideos, find_done
from rayclip.output.folder import FeatureFolder
from rayclip.output.formats import SUFFIXES, FileFormat, file_format
from rayclip.output.rows import Damage, Extraction, Row, ScannedVideo, StoredVideo, Work
from rayclip.output.safe_names import output_name, tar_output_name, utf8_name
from rayclip.output.stored_arrays import Blocks, DamagedContent, StoredArray, read_blocks
from rayclip.output.video_files import DamagedFile, read_timestamps, read_video

T = TypeVar("T")

LOCAL_FOLDER = "local-dir:"
SEPARATORS = re.compile("[/:]")
PREDICTIONS_FILE = "_pred.csv"
NUMPY = file_format("save_numpy", "float32")


class ArrayFolder(FeatureFolder):
    """A folder with three files for each video, ``.npy`` or ``.pkl``.

    They are named after the video's ``name``, which may contain folders.
    """

    unit = "features file"
    discards_all = False
    buffer_bytes = 0  # each video is committed by itself
    buffer_s = 0.0

    def __init__(
        self,
        url: str,
        dim: int,
        storage_options: Mapping[str, Any],
        files: FileFormat = NUMPY,
        naming: str = "stem",
        of_tars: bool = False,
    ) -> None:
        """Name a folder, without creating or reading it.

        Args:
            url: a local path or an fsspec URL.
            dim: features per frame, to recognise damaged files by their size.
            storage_options: passed to fsspec.
            files: the format of the arrays.
            naming: how videos are named, ``stem`` or ``path``.
            of_tars: whether the videos are those of tar files.

        Raises:
            UsageError: the URL's protocol is unknown.
        """
        super().__init__(url, storage_options, nested=of_tars or naming == "path")
        self._naming = naming
        self._of_tars = of_tars
        self._dim = dim
        self._files = files

    def name_of(self, video: str) -> str:
        name = (tar_output_name if self._of_tars else output_name)(video, self._naming)
        return name if isinstance(self._fs, LocalFileSystem) else utf8_name(name)

    def writer(self, task: Sequence[str]) -> ArrayFolder:
        return self

    def saved_before(self, video: str) -> int | None:
        return self.committed_frames(self.name_of(video))

    def save(self, rows: Sequence[Row]) -> None:
        """Commit each video; raises the same errors as :meth:`commit`."""
        for row in rows:
            predictions = None
            if row.predictions is not None:
                predictions = predictions_csv(row.extraction.timestamps_ms, row.predictions)
            self.commit(self.name_of(row.video), row.extraction, predictions)

    def commit(self, name: str, extraction: Extraction, predictions: bytes | None = None) -> None:
        """Write the files of one video; the features file comes last and marks the video done.

        Args:
            name: the name of the video in this folder.
            extraction: its arrays.
            predictions: the content of ``{name}_pred.csv``; None writes none.

        Raises:
            RunStopped: the folder cannot be written; the message says why and what to do.
            Exception: any error of the storage that concerns only this video; its features file
                was not written.
        """
        if self._nested:
            self.prepare_parent(name)
        if predictions is not None:
            self.put(name + PREDICTIONS_FILE, predictions)
        self._put_array(self._file(name, FPS), np.array(extraction.fps), "float64")
        self._put_array(self._file(name, TIMESTAMPS), extraction.timestamps_ms, "float64")
        self._put_array(self._file(name, FEATURES), extraction.clip, self._files.dtype)

    def discard(self, names: Iterable[str]) -> None:
        """Remove the features of these videos, in any format, and their predictions, since this run
        may write none.

        Raises:
            RunStopped: a file cannot be removed.
        """
        kinds = (*(FEATURES + suffix for suffix in SUFFIXES), PREDICTIONS_FILE)
        self.remove_files(name + kind for name in names for kind in kinds)

    def committed_frames(self, name: str) -> int | None:
        """Return the number of frames of a video; None unless it is known to be complete."""
        sizes = []
        for kind in (FPS, TIMESTAMPS, FEATURES):
            size = partial(self._fs.size, self._path(self._file(name, kind)))
            try:
                sizes.append(int(with_retry(size, is_transient)))
            except Exception:  # the storage does not say; recomputing is safe
                return None
        fps, timestamps, features = np.array(sizes, np.int64)
        frames = int(self._files.frames(features, timestamps, self._dim))
        return frames if frames and self._files.is_fps(fps) else None

    def done(self, listing: Iterable[StoredFile] | None = None) -> DoneVideos:
        """Find each complete video in one listing of the folder.

        Args:
            listing: the result of :meth:`files`; None lists the folder.

        Raises:
            UsageError, RunStopped: it cannot be listed.
        """
        return find_done(self.files() if listing is None else listing, self._files, self._dim)

    def names(self) -> Iterator[str]:
        for file in self.files():
            name, suffix = os.path.splitext(file.path)
            if suffix in SUFFIXES and name.endswith(FEATURES):
                yield name.removesuffix(FEATURES)

    def feature_files(self) -> Iterator[StoredFile]:
        ending = FEATURES + self._files.suffix
        return (file for file in self.files() if file.path.endswith(ending))

    def read_file(self, file: str) -> Iterator[StoredVideo]:
        arrays = self._read(file, StoredArray.read_or_map)
        if arrays is None:
            raise FileNotFoundError(file)
        clip, timestamps_ms, fps = arrays
        name = file.removesuffix(FEATURES + self._files.suffix)
        yield StoredVideo(name, clip, timestamps_ms, float(fps))

    def scan_file(self, file: str) -> Iterator[ScannedVideo]:
        """Read the features of one video; from local ``.npy`` files without its other files."""
        if self._files.suffix != ".npy" or not isinstance(self._fs, LocalFileSystem):
            yield from super().scan_file(file)
            return
        name = file.removesuffix(FEATURES + self._files.suffix)
        with open(self._path(file), "rb") as opened:
            try:
                frames, blocks = read_blocks(opened, self._files.dtype, self._dim)
            except DamagedContent as error:
                raise DamagedFile(file, str(error)) from error
            blocks = _naming_damage(blocks, file)
            times = partial(read_timestamps, self, self._file(name, TIMESTAMPS), frames)
            yield ScannedVideo(name, None, blocks, times)

    def verify(self) -> Iterator[Damage | None]:
        endings = tuple(FEATURES + suffix for suffix in SUFFIXES)
        files = (file.path for file in self.files() if file.path.endswith(endings))
        yield from concurrent_map(self._damage, files)

    def _damage(self, features: str) -> Damage | None:
        """Return a video's first damage, given its features file; None if that was removed."""
        try:
            self._read(features, _expect_finite)
        except DamagedFile as error:
            return Damage(error.file, error.reason)
        return None

    def _read(self, features: str, read: Callable[[StoredArray], T]) -> list[T] | None:
        return read_video(self, features, self._files.dtype, self._dim, read)

    def estimate_work(self, file: StoredFile) -> Work | None:
        if not file.path.endswith(FEATURES + self._files.suffix):
            return None
        row = np.dtype(self._files.dtype).itemsize * self._dim
        return Work(1, (file.size - self._files.overhead[2]) / row)

    def _put_array(self, name: str, values: NDArray[Any], dtype: str) -> None:
        write = partial(self._files.write, values=values, dtype=dtype)
        self.write(name, values.size * np.dtype(dtype).itemsize, write)

    def _file(self, name: str, kind: str) -> str:
        return name + kind + self._files.suffix


def _expect_finite(array: StoredArray) -> None:
    """Read an array to its end."""
    for block in array.blocks:
        # the frame rate of a video may be unknown
        if array.shape and not np.isfinite(block).all():
            raise DamagedContent("not all of its numbers are finite")


def _naming_damage(blocks: Blocks, file: str) -> Blocks:
    try:
        yield from blocks
    except DamagedContent as error:
        raise DamagedFile(file, str(error)) from error


def model_folder(output_path: str, model_name: str) -> str:
    """Return the folder of a model, as in video_features: ``{output_path}/clip/{model_name}``.

    Slashes and colons of the name become underscores; of ``local-dir:PATH``, only the folder's own
    name is kept.
    """
    between = "" if output_path.endswith("/") else "/"
    if model_name.startswith(LOCAL_FOLDER):
        path = model_name.removeprefix(LOCAL_FOLDER)
        model_name = LOCAL_FOLDER + os.path.basename(os.path.abspath(os.path.expanduser(path)))
    return f"{output_path}{between}clip/{SEPARATORS.sub('_', model_name)}"
