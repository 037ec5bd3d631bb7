"""The output folder: names, atomic commits, and what is done. It is the only truth about a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import IO, Any, NamedTuple

import numpy as np
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from rayclip.done import FEATURES, FPS, TIMESTAMPS, DoneVideos, find_done
from rayclip.errors import RayclipError, RunStopped, UsageError
from rayclip.faults import Fault, fault_of, passes, reason, why_to_stop
from rayclip.formats import SUFFIXES, FileFormat, file_format
from rayclip.listing import StoredFile, local_files, modified_of
from rayclip.patience import GaveUp, persistently
from rayclip.remote import file_system, with_reason
from rayclip.whole_files import LEFT_OVER, Write, write_whole

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
            self._fs, self._root = file_system(url, storage_options)
        except (ValueError, ImportError) as error:
            raise UsageError(f"The output_path {url} cannot be used: {error}.") from error
        self.url = url
        self._dim = dim
        self._files = files
        self._nested = nested
        self._made: set[str] = set()

    def where(self) -> tuple[Any, str]:
        """The fsspec file system that it is on, and its path there."""
        return self._fs, self._root

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            UsageError, RunStopped: it cannot be made.
        """
        try:
            persistently(lambda: self._fs.makedirs(self._root, exist_ok=True), passes)
        except Exception as error:  # each storage has exceptions of its own
            raise self._unusable(f"The folder {self.url} cannot be made", error) from error

    def commit(self, name: str, extraction: Extraction, predictions: bytes | None = None) -> None:
        """Write one video's files so that the features file, which says "done", comes last.

        Args:
            name: of the video in this folder.
            extraction: its arrays.
            predictions: the content of ``{name}_pred.csv``, where there is one.

        Raises:
            RunStopped: nothing can be written here: the sentence says why and what to do.
            Exception: what the storage raises, of this video's files only; there is no new features
                file then.
        """
        if self._nested:
            self._make_folder(self._path(name).rpartition("/")[0])
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
        """The number of frames of one complete video; None where it is not known to be complete."""
        sizes = []
        for kind in (FPS, TIMESTAMPS, FEATURES):
            size = partial(self._fs.size, self._path(self._file(name, kind)))
            try:
                sizes.append(int(persistently(size, passes)))
            except Exception:  # a storage that does not tell: to make it again is safe
                return None
        frames = self._files.timestamps_rows(sizes[1])
        if not frames:
            return None
        whole = [self._files.size((), "float64"), sizes[1]]
        return frames if sizes == [*whole, self._files.features_size(frames, self._dim)] else None

    def done(self, listing: Iterable[StoredFile] | None = None) -> DoneVideos:
        """Find every complete video in one listing of the folder.

        Args:
            listing: what :meth:`files` gives, handed on; None lists the folder.

        Raises:
            UsageError, RunStopped: it cannot be listed.
        """
        return find_done(self.files() if listing is None else listing, self._files, self._dim)

    def remove(self, leftovers: Iterable[str]) -> None:
        """Take away temporary files that :meth:`done` found."""
        for name in leftovers:
            with suppress(OSError):  # another run was faster, or may and we may not
                self._fs.rm_file(self._path(name))

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
            UsageError, RunStopped: there is one that cannot be read or understood.
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
        """Write ``run.json``.

        Raises:
            UsageError, RunStopped: it cannot be written.
        """
        try:
            self._put(RUN_FILE, (json.dumps(run, indent=2) + "\n").encode())
        except RunStopped:
            raise
        except Exception as error:
            raise self._unusable(f"{self.url}/{RUN_FILE} cannot be written", error) from error

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
        """Write ``failures.jsonl``; raises as :meth:`commit`."""
        lines = [json.dumps(failure) + "\n" for failure in failures]
        self._put(FAILURES_FILE, "".join(lines).encode())

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _content(self, name: str) -> bytes | None:
        path = self._path(name)
        read = partial(with_reason, self._fs, path, lambda: self._fs.cat_file(path))
        try:
            return bytes(persistently(read, passes))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._unusable(f"{self.url}/{name} cannot be read", error) from error

    def _put(self, name: str, content: bytes) -> None:
        self._write(name, len(content), lambda file: file.write(content))

    def _put_array(self, name: str, values: NDArray[Any], dtype: str) -> None:
        write = partial(self._files.write, values=values, dtype=dtype)
        self._write(name, self._files.size(values.shape, dtype), write)

    def _write(self, name: str, size: int, write: Write) -> None:
        self._persist(lambda: write_whole(self._fs, self._path(name), size, write))

    def _make_folder(self, path: str) -> None:
        if path not in self._made:  # a storage may need several requests to find that it is there
            self._persist(lambda: self._fs.makedirs(path, exist_ok=True))
            self._made.add(path)

    def _persist(self, change: Callable[[], object]) -> None:
        try:
            persistently(change, passes)
        except Exception as error:
            sentence = why_to_stop(error, self.url)
            if sentence is None:
                raise
            raise RunStopped(sentence) from error

    def _unusable(self, what: str, error: Exception) -> RayclipError:
        """The command is wrong where its folder can never be used, and else may be repeated."""
        if fault_of(error) in (Fault.CREDENTIALS, Fault.FULL):
            return RunStopped(str(why_to_stop(error, self.url)))
        kind = RunStopped if isinstance(error, GaveUp) else UsageError
        return kind(f"{what}: {reason(error)}.")

    def _file(self, name: str, kind: str) -> str:
        return name + kind + self._files.suffix

    def files(self) -> Iterator[StoredFile]:
        """List the files of all arrays, and temporary ones; streamed where the folder is local.

        Raises:
            UsageError, RunStopped: it cannot be listed.
        """
        try:
            if isinstance(self._fs, LocalFileSystem):
                yield from local_files(self._root, (*SUFFIXES, LEFT_OVER))
                return
            self._fs.invalidate_cache(self._root)
            find = partial(self._fs.find, self._root, None if self._nested else 1, detail=True)
            for path, entry in persistently(find, passes).items():
                file = path.removeprefix(self._root).lstrip("/")
                yield StoredFile(file, int(entry["size"] or 0), modified_of(entry))
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._unusable(f"The folder {self.url} cannot be listed", error) from error


def model_folder(output_path: str, model_name: str) -> str:
    """The reference's place for a model's features: ``{output_path}/clip/{model_name}``."""
    between = "" if output_path.endswith("/") else "/"
    return f"{output_path}{between}clip/{model_name.replace('/', '_')}"
