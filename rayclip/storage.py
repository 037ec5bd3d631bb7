"""The output folder: names, atomic commits, and what is done. It is the only truth about a run."""

from __future__ import annotations

import hashlib
import io
import json
import os
import uuid
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from rayclip.errors import UsageError

FEATURES = "_clip.npy"
TIMESTAMPS = "_timestamps_ms.npy"
FPS = "_fps.npy"
RUN_FILE = "run.json"
FAILURES_FILE = "failures.jsonl"


class Extraction(NamedTuple):
    """What is kept of one video.

    Attributes:
        clip: features, float32 ``[T, D]``.
        timestamps_ms: float64 ``[T]``, ms from the container's start.
        fps: the video's own average frame rate.
    """

    clip: NDArray[np.float32]
    timestamps_ms: NDArray[np.float64]
    fps: float


class DoneVideos:
    """Which videos of a folder are complete, as 16 bytes each."""

    def __init__(self, hashes: NDArray[np.uint64], frames: NDArray[np.uint64]) -> None:
        self._hashes = hashes
        self._frames = frames

    @classmethod
    def none(cls) -> DoneVideos:
        return cls(np.empty(0, np.uint64), np.empty(0, np.uint64))

    def __len__(self) -> int:
        return len(self._hashes)

    def frames_of(self, stem: str) -> int | None:
        """The number of frames of a complete video; None where it is not complete."""
        wanted = np.uint64(name_hash(stem))
        place = int(np.searchsorted(self._hashes, wanted))
        if place == len(self._hashes) or self._hashes[place] != wanted:
            return None
        return int(self._frames[place])


class OutputFolder:
    """Where the features of one model go; cheap to send to another process."""

    def __init__(self, url: str, dim: int, storage_options: Mapping[str, Any]) -> None:
        """Name a folder; nothing is made or read yet.

        Args:
            url: a local path or an fsspec URL.
            dim: features per frame, by which whole files are told from damaged ones.
            storage_options: given to fsspec.

        Raises:
            UsageError: no storage is known under this URL's protocol.
        """
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url, **storage_options)
        except (ValueError, ImportError) as error:
            raise UsageError(f"The output_path {url} cannot be used: {error}.") from error
        self.url = url
        self._dim = dim

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            UsageError: it cannot be made.
        """
        try:
            self._fs.makedirs(self._root, exist_ok=True)
        except OSError as error:
            raise UsageError(f"The folder {self.url} cannot be made: {error}.") from error

    def commit(self, stem: str, extraction: Extraction) -> None:
        """Write one video's files so that the features file, which says "done", comes last."""
        self._put(stem + FPS, _npy(np.float64(extraction.fps)))
        self._put(stem + TIMESTAMPS, _npy(extraction.timestamps_ms))
        self._put(stem + FEATURES, _npy(extraction.clip))

    def discard(self, stems: Iterable[str]) -> None:
        """Take back that these videos are done, by removing their features files."""
        for stem in stems:
            with suppress(FileNotFoundError):  # another run took it away meanwhile
                self._fs.rm_file(self._path(stem + FEATURES))

    def committed_frames(self, stem: str) -> int | None:
        """The number of frames of one complete video; None where it is not complete."""
        sizes = []
        for suffix in (FPS, TIMESTAMPS, FEATURES):
            try:
                sizes.append(int(self._fs.size(self._path(stem + suffix))))
            except FileNotFoundError:
                return None
        frames = timestamps_rows(sizes[1])
        return (
            frames if frames is not None and sizes[2] == features_size(frames, self._dim) else None
        )

    def done(self) -> DoneVideos:
        """List the folder once and find every complete video."""
        fps_hashes = array("Q")
        rows: dict[str, tuple[array[int], array[int]]] = {
            TIMESTAMPS: (array("Q"), array("Q")),
            FEATURES: (array("Q"), array("Q")),
        }
        for name, size in self._files():
            if name.endswith(FPS):
                fps_hashes.append(name_hash(name.removesuffix(FPS)))
            for suffix, (hashes, frames) in rows.items():
                if not name.endswith(suffix):
                    continue
                count = (
                    timestamps_rows(size)
                    if suffix == TIMESTAMPS
                    else features_rows(size, self._dim)
                )
                if count is not None:
                    hashes.append(name_hash(name.removesuffix(suffix)))
                    frames.append(count)
        timestamps, features = (
            (np.frombuffer(hashes, np.uint64), np.frombuffer(frames, np.uint64))
            for hashes, frames in rows.values()
        )
        both, in_timestamps, in_features = np.intersect1d(
            timestamps[0], features[0], return_indices=True
        )
        whole = timestamps[1][in_timestamps] == features[1][in_features]
        whole &= np.isin(both, np.frombuffer(fps_hashes, np.uint64))
        return DoneVideos(both[whole], features[1][in_features][whole])

    def read_run(self) -> dict[str, Any] | None:
        """What ``run.json`` says; None where there is none.

        Raises:
            UsageError: there is one that cannot be understood.
        """
        text = self._text(RUN_FILE)
        if text is None:
            return None
        try:
            run = json.loads(text)
            if not isinstance(run, dict):
                raise ValueError("no JSON object")
        except ValueError as error:
            raise UsageError(f"{self.url}/{RUN_FILE} is damaged ({error}): remove it.") from error
        return run

    def write_run(self, run: Mapping[str, Any]) -> None:
        self._put(RUN_FILE, (json.dumps(run, indent=2) + "\n").encode())

    def read_failures(self) -> list[dict[str, Any]]:
        """The lines of ``failures.jsonl``; those that cannot be understood are left out."""
        failures = []
        for line in (self._text(FAILURES_FILE) or "").split("\n"):
            try:
                failure = json.loads(line)
            except ValueError:
                continue
            if isinstance(failure, dict) and "video" in failure:
                failures.append(failure)
        return failures

    def write_failures(self, failures: Iterable[Mapping[str, Any]]) -> None:
        lines = [json.dumps(failure) + "\n" for failure in failures]
        self._put(FAILURES_FILE, "".join(lines).encode())

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _text(self, name: str) -> str | None:
        try:
            return bytes(self._fs.cat_file(self._path(name))).decode()
        except FileNotFoundError:
            return None

    def _put(self, name: str, content: bytes) -> None:
        """Write a whole file or nothing: object stores do so by themselves."""
        path = self._path(name)
        if not isinstance(self._fs, LocalFileSystem):
            self._fs.pipe_file(path, content)
            return
        temporary = f"{self._root}/.{uuid.uuid4().hex}.tmp"
        try:
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise

    def _files(self) -> Iterator[tuple[str, int]]:
        """Names and sizes of the arrays in the folder, streamed where it is local."""
        try:
            if isinstance(self._fs, LocalFileSystem):
                yield from _local_arrays(self._root)
            else:
                self._fs.invalidate_cache(self._root)
                for entry in self._fs.ls(self._root, detail=True):
                    yield entry["name"].rpartition("/")[2], int(entry["size"] or 0)
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


def features_size(frames: int, dim: int) -> int:
    """Bytes of a float32 ``[frames, dim]`` npy file."""
    return _header_size((frames, dim), np.dtype(np.float32)) + frames * dim * 4


def features_rows(size: int, dim: int) -> int | None:
    """Rows of a float32 npy file ``[T, dim]`` by its size; None where no T gives that size."""
    frames = (size - _header_size((1, dim), np.dtype(np.float32))) // (dim * 4)
    return frames if frames > 0 and features_size(frames, dim) == size else None


def timestamps_rows(size: int) -> int | None:
    """Rows of a float64 npy file ``[T]`` by its size; None where no T gives that size."""
    float64 = np.dtype(np.float64)
    frames = (size - _header_size((1,), float64)) // 8
    whole = frames > 0 and _header_size((frames,), float64) + frames * 8 == size
    return frames if whole else None


def _local_arrays(root: str) -> Iterator[tuple[str, int]]:
    with os.scandir(root) as entries:
        for entry in entries:
            if not entry.name.endswith(".npy"):
                continue
            try:
                yield entry.name, entry.stat().st_size
            except FileNotFoundError:  # another run took it away meanwhile
                continue


def _npy(values: NDArray[Any] | np.float64) -> bytes:
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    return file.getvalue()


def _header_size(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    header = io.BytesIO()
    description = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    return header.tell()
