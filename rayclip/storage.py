"""The output folder: names, atomic commits, and what is done. It is the only truth about a run."""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import IO, Any, NamedTuple

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from rayclip.errors import UsageError
from rayclip.formats import SUFFIXES, FileFormat, file_format
from rayclip.listing import StoredFile, local_files, modified_of
from rayclip.whole_files import write_whole

FEATURES = "_clip"
TIMESTAMPS = "_timestamps_ms"
FPS = "_fps"
PREDICTIONS_FILE = "_pred.csv"
NUMPY = file_format("save_numpy", "float32")
RUN_FILE = "run.json"
FAILURES_FILE = "failures.jsonl"


class Extraction(NamedTuple):
    """What is kept of one video.

    Attributes:
        clip: features, float32 ``[T, D]``; those of a long video may be a ``np.memmap``.
        timestamps_ms: float64 ``[T]``, ms from the container's start.
        fps: the video's own average frame rate.
    """

    clip: NDArray[np.float32]
    timestamps_ms: NDArray[np.float64]
    fps: float


class DoneVideos:
    """Which videos of a folder are complete, as 16 bytes each.

    Attributes:
        hashes: of their names, in ascending order.
        frames: of all of them together.
        begun: hashes of the names of all that have a features file, in any format and state.
    """

    def __init__(
        self,
        hashes: NDArray[np.uint64],
        frames: NDArray[np.uint64],
        begun: NDArray[np.uint64],
    ) -> None:
        self.hashes = hashes
        self._frames = frames
        self.frames = int(frames.sum())
        self.begun = begun

    def __len__(self) -> int:
        return len(self.hashes)

    def frames_of(self, name: str) -> int | None:
        """The number of frames of a complete video; None where it is not complete."""
        wanted = np.uint64(name_hash(name))
        place = int(np.searchsorted(self.hashes, wanted))
        if place == len(self.hashes) or self.hashes[place] != wanted:
            return None
        return int(self._frames[place])


class OutputFolder:
    """Where the features of one model go; cheap to send to another process.

    A video's files are called after its ``name``, which may have folders in it.
    """

    def __init__(
        self,
        url: str,
        dim: int,
        storage_options: Mapping[str, Any],
        files: FileFormat = NUMPY,
        nested: bool = False,
    ) -> None:
        """Name a folder; nothing is made or read yet.

        Args:
            url: a local path or an fsspec URL.
            dim: features per frame, by which whole files are told from damaged ones.
            storage_options: given to fsspec.
            files: the format of the arrays.
            nested: whether names have folders in them.

        Raises:
            UsageError: no storage is known under this URL's protocol.
        """
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url, **storage_options)
        except (ValueError, ImportError) as error:
            raise UsageError(f"The output_path {url} cannot be used: {error}.") from error
        self.url = url
        self._dim = dim
        self._files = files
        self._nested = nested

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            UsageError: it cannot be made.
        """
        try:
            self._fs.makedirs(self._root, exist_ok=True)
        except OSError as error:
            raise UsageError(f"The folder {self.url} cannot be made: {error}.") from error

    def commit(self, name: str, extraction: Extraction, predictions: bytes | None = None) -> None:
        """Write one video's files so that the features file, which says "done", comes last.

        Args:
            name: of the video in this folder.
            extraction: its arrays.
            predictions: the content of ``{name}_pred.csv``, where there is one.
        """
        if self._nested:
            self._fs.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
        if predictions is not None:
            self._put(name + PREDICTIONS_FILE, predictions)
        self._put_array(self._file(name, FPS), np.array(extraction.fps), "float64")
        self._put_array(self._file(name, TIMESTAMPS), extraction.timestamps_ms, "float64")
        self._put_array(self._file(name, FEATURES), extraction.clip, self._files.dtype)

    def discard(self, names: Iterable[str]) -> None:
        """Take back that these videos are done, by removing their features, in any format."""
        for name in names:
            for suffix in SUFFIXES:
                with suppress(FileNotFoundError):
                    self._fs.rm_file(self._path(name + FEATURES + suffix))

    def committed_frames(self, name: str) -> int | None:
        """The number of frames of one complete video; None where it is not complete."""
        sizes = []
        for kind in (FPS, TIMESTAMPS, FEATURES):
            try:
                sizes.append(int(self._fs.size(self._path(self._file(name, kind)))))
            except FileNotFoundError:
                return None
        frames = self._files.timestamps_rows(sizes[1])
        if not frames:
            return None
        whole = [self._files.size((), "float64"), sizes[1]]
        return frames if sizes == [*whole, self._files.features_size(frames, self._dim)] else None

    def done(self, listing: Iterable[StoredFile] | None = None) -> DoneVideos:
        """Find every complete video in one listing of the folder.

        Args:
            listing: what :meth:`arrays` gives, handed on; None lists the folder.
        """
        found = {kind: (array("Q"), array("Q")) for kind in (FPS, TIMESTAMPS, FEATURES)}
        begun = array("Q")
        for file, size, _ in self.arrays() if listing is None else listing:
            for suffix in SUFFIXES:
                if file.endswith(FEATURES + suffix):
                    begun.append(name_hash(file.removesuffix(FEATURES + suffix)))
            for kind, (hashes, sizes) in found.items():
                if file.endswith(kind + self._files.suffix):
                    hashes.append(name_hash(file.removesuffix(kind + self._files.suffix)))
                    sizes.append(size)
        fps, timestamps, features = (
            (np.frombuffer(hashes, np.uint64), np.frombuffer(sizes, np.uint64))
            for hashes, sizes in found.values()
        )
        both, in_timestamps, in_features = np.intersect1d(
            timestamps[0], features[0], return_indices=True
        )
        frames = np.array(
            [self._files.timestamps_rows(int(size)) or 0 for size in timestamps[1][in_timestamps]],
            np.uint64,
        )
        expected = [self._files.features_size(int(rows), self._dim) for rows in frames]
        whole = (frames > 0) & (features[1][in_features] == np.array(expected, np.uint64))
        whole &= np.isin(both, fps[0][fps[1] == self._files.size((), "float64")])
        return DoneVideos(both[whole], frames[whole], np.frombuffer(begun, np.uint64))

    def open(self, file: str) -> IO[bytes]:
        """Open one of its files for reading."""
        opened: IO[bytes] = self._fs.open(self._path(file), "rb")
        return opened

    def modified(self, file: str) -> float | None:
        """When one of its files was written, in seconds since 1970, where the storage tells."""
        return modified_of(self._fs.info(self._path(file)))

    def read_run(self) -> dict[str, Any] | None:
        """What ``run.json`` says; None where there is none.

        Raises:
            UsageError: there is one that cannot be understood.
        """
        content = self._content(RUN_FILE)
        if content is None:
            return None
        try:
            run = json.loads(content)
            if not isinstance(run, dict) or "model_name" not in run:
                raise ValueError("it does not tell any settings")
        except ValueError as error:
            raise UsageError(f"{self.url}/{RUN_FILE} is damaged ({error}): remove it.") from error
        return run

    def write_run(self, run: Mapping[str, Any]) -> None:
        self._put(RUN_FILE, (json.dumps(run, indent=2) + "\n").encode())

    def read_failures(self) -> list[dict[str, Any]]:
        """The lines of ``failures.jsonl``; those that cannot be understood are left out."""
        failures = []
        for line in (self._content(FAILURES_FILE) or b"").split(b"\n"):
            try:
                failure = json.loads(line)
            except ValueError:
                continue
            if isinstance(failure, dict) and isinstance(failure.get("video"), str):
                failures.append(failure)
        return failures

    def write_failures(self, failures: Iterable[Mapping[str, Any]]) -> None:
        lines = [json.dumps(failure) + "\n" for failure in failures]
        self._put(FAILURES_FILE, "".join(lines).encode())

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _content(self, name: str) -> bytes | None:
        try:
            return bytes(self._fs.cat_file(self._path(name)))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"{self.url}/{name} cannot be read: {error}.") from error

    def _put(self, name: str, content: bytes) -> None:
        write_whole(self._fs, self._path(name), len(content), lambda file: file.write(content))

    def _put_array(self, name: str, values: NDArray[Any], dtype: str) -> None:
        size = self._files.size(values.shape, dtype)
        write = partial(self._files.write, values=values, dtype=dtype)
        write_whole(self._fs, self._path(name), size, write)

    def _file(self, name: str, kind: str) -> str:
        return name + kind + self._files.suffix

    def arrays(self) -> Iterator[StoredFile]:
        """List the files of all arrays, streamed where the folder is local.

        Raises:
            UsageError: it cannot be listed.
        """
        try:
            if isinstance(self._fs, LocalFileSystem):
                yield from local_files(self._root, SUFFIXES)
                return
            self._fs.invalidate_cache(self._root)
            depth = None if self._nested else 1
            for path, entry in self._fs.find(self._root, maxdepth=depth, detail=True).items():
                file = path.removeprefix(self._root).lstrip("/")
                yield StoredFile(file, int(entry["size"] or 0), modified_of(entry))
        except FileNotFoundError:
            return
        except OSError as error:
            raise UsageError(f"The folder {self.url} cannot be listed: {error}.") from error


def model_folder(output_path: str, model_name: str) -> str:
    """The reference's place for a model's features: ``{output_path}/clip/{model_name}``."""
    between = "" if output_path.endswith("/") else "/"
    return f"{output_path}{between}clip/{model_name.replace('/', '_')}"


def name_hash(name: str) -> int:
    """64 bits of a name, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=8).digest(), "little")
