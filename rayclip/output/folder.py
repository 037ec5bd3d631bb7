"""The output folder of one model, in whichever format: reading, writing and listing its files."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from fsspec.implementations.local import LocalFileSystem

from rayclip.errors import RayclipError, RunStopped, UsageError
from rayclip.io.atomic_write import TMP_SUFFIX, Write, write_atomically
from rayclip.io.concurrent_map import concurrent_map
from rayclip.io.listing import StoredFile, local_files, modified_time
from rayclip.io.remote import file_system, with_reason
from rayclip.io.retry import RetriesExhausted, with_retry
from rayclip.io.storage_errors import ErrorKind, classify_error, is_transient, reason, stop_reason
from rayclip.output.done import DoneVideos
from rayclip.output.formats import SUFFIXES
from rayclip.output.rows import Damage, StoredVideo, Work, Writer
from rayclip.output.shard_names import SHARD_SUFFIX

if TYPE_CHECKING:
    import pyarrow as pa

RUN_FILE = "run.json"
FAILURES_FILE = "failures.jsonl"


class FeatureFolder(ABC):
    """The output folder of one model; cheap to send to another process.

    Attributes:
        url: a local path or an fsspec URL.
        unit: the noun for its features files, in the singular.
        discards_all: whether :meth:`discard` always removes the features of all videos.
    """

    unit: str
    discards_all: bool

    def __init__(self, url: str, storage_options: Mapping[str, Any], nested: bool = False) -> None:
        """Name a folder, without creating or reading it.

        Args:
            url: a local path or an fsspec URL.
            storage_options: passed to fsspec.
            nested: whether it contains folders.

        Raises:
            UsageError: the URL's protocol is unknown.
        """
        try:
            self._fs, self._root = file_system(url, storage_options)
        except (ValueError, ImportError) as error:
            raise UsageError(f"The output_path {url} cannot be used: {error}.") from error
        self.url = url
        self._nested = nested

    @abstractmethod
    def name_of(self, video: str) -> str:
        """Return a video's name in this folder, given its input path or URL."""

    @abstractmethod
    def writer(self, videos: Sequence[str], extra_columns: pa.Table | None) -> Writer:
        """Return a writer for the videos of one task.

        Args:
            videos: the videos of the task, in order.
            extra_columns: other columns for them, a row for each video; formats without columns
                ignore them.
        """

    @abstractmethod
    def done(self, listing: Iterable[StoredFile] | None = None) -> DoneVideos:
        """Find each complete video in one listing of the folder.

        Args:
            listing: the result of :meth:`files`; None lists the folder.

        Raises:
            UsageError, RunStopped: it cannot be listed or read.
        """

    @abstractmethod
    def feature_files(self) -> Iterator[StoredFile]:
        """List the files that hold features; raises the same errors as :meth:`files`."""

    @abstractmethod
    def read_file(self, file: str) -> Iterator[StoredVideo]:
        """Read the videos in one of :meth:`feature_files`, with their features, one by one.

        Raises:
            FileNotFoundError: it was removed meanwhile.
            DamagedFile: a file is damaged or cannot be read.
        """

    @abstractmethod
    def verify(self) -> Iterator[Damage | None]:
        """Open every file of features, and those that go with it, and check their content.

        Memory is bounded for ``.npy`` files of any size. A ``.pkl`` file is in memory as a whole,
        twice, and up to :data:`~rayclip.io.concurrent_map.THREADS` are read at once. Of a shard,
        one row group is in memory.

        Yields:
            For each video its first damage, or None; for a damaged shard one damage in total.

        Raises:
            UsageError, RunStopped: the folder cannot be listed.
        """

    @abstractmethod
    def discard(self, names: Iterable[str]) -> None:
        """Remove the features of these videos; of all videos if ``discards_all``."""

    @abstractmethod
    def estimate_work(self, file: StoredFile) -> Work | None:
        """Estimate a file's videos and frames from its name and size; None if no run wrote it."""

    def fs_and_path(self) -> tuple[Any, str]:
        """Return the fsspec file system of this folder, and its path there."""
        return self._fs, self._root

    def prepare(self) -> None:
        """Create the folder.

        Raises:
            UsageError, RunStopped: it cannot be created.
        """
        try:
            with_retry(lambda: self._fs.makedirs(self._root, exist_ok=True), is_transient)
        except Exception as error:  # each storage has exceptions of its own
            raise self._unusable(f"The folder {self.url} cannot be created", error) from error

    def remove(self, stale_tmp: Iterable[str]) -> None:
        """Remove stale files found by :meth:`done`, as far as permissions allow."""
        for name in stale_tmp:
            with suppress(OSError):  # already removed by another run, or not permitted
                self._fs.rm_file(self._path(name))

    def open(self, file: str) -> IO[bytes]:
        """Open a file of the folder for reading."""
        opened: IO[bytes] = self._fs.open(self._path(file), "rb")
        return opened

    def modified(self, file: str) -> float | None:
        """Return a file's modification time in seconds since 1970; None if the storage has none."""
        return modified_time(self._fs.info(self._path(file)))

    def read_run(self) -> dict[str, Any] | None:
        """Read ``run.json``; returns None if there is none.

        Raises:
            UsageError, RunStopped: it cannot be read or parsed.
        """
        content = self._content(RUN_FILE)
        if content is None:
            return None
        try:
            run = json.loads(content)
            if not isinstance(run, dict) or "model_name" not in run:
                raise ValueError("it holds no settings")
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
        """Read ``failures.jsonl``; lines that cannot be parsed are left out."""
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
        """Write ``failures.jsonl``; raises the same errors as :meth:`Writer.save`."""
        lines = [json.dumps(failure) + "\n" for failure in failures]
        self._put(FAILURES_FILE, "".join(lines).encode())

    def remove_files(self, files: Iterable[str]) -> None:
        """Remove files; missing ones are ignored.

        Raises:
            RunStopped: one cannot be removed.
        """
        for _ in concurrent_map(self._remove_file, files):
            pass

    def _remove_file(self, file: str) -> None:
        try:
            with suppress(FileNotFoundError):
                with_retry(partial(self._fs.rm_file, self._path(file)), is_transient)
        except Exception as error:  # each storage has exceptions of its own
            what = f"{self.url}/{file} cannot be removed"
            raise RunStopped(f"{what}: {reason(error)}.") from error

    def _entries(self) -> list[dict[str, Any]]:
        if self._nested:  # the default would silently skip folders that cannot be listed
            found = self._fs.find(self._root, detail=True, on_error="raise")
            return list(found.values())
        return [e for e in self._fs.ls(self._root, detail=True) if e["type"] == "file"]

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _content(self, name: str) -> bytes | None:
        path = self._path(name)
        read = partial(with_reason, self._fs, path, lambda: self._fs.cat_file(path))
        try:
            return bytes(with_retry(read, is_transient))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._unusable(f"{self.url}/{name} cannot be read", error) from error

    def _put(self, name: str, content: bytes) -> None:
        self._write(name, len(content), lambda file: file.write(content))

    def _write(self, name: str, size: int, write: Write) -> None:
        self._persist(lambda: write_atomically(self._fs, self._path(name), size, write))

    def _persist(self, change: Callable[[], object]) -> None:
        try:
            with_retry(change, is_transient)
        except Exception as error:
            sentence = stop_reason(error, self.url)
            if sentence is None:
                raise
            raise RunStopped(sentence) from error

    def _unusable(self, what: str, error: Exception) -> RayclipError:
        """Return RunStopped if a rerun may help, otherwise UsageError."""
        if classify_error(error) in (ErrorKind.CREDENTIALS, ErrorKind.FULL):
            return RunStopped(str(stop_reason(error, self.url)))
        kind = RunStopped if isinstance(error, RetriesExhausted) else UsageError
        return kind(f"{what}: {reason(error)}.")

    def files(self) -> Iterator[StoredFile]:
        """List features files and temporary files; a local folder is streamed.

        Raises:
            UsageError, RunStopped: it cannot be listed.
        """
        try:
            if isinstance(self._fs, LocalFileSystem):
                yield from local_files(self._root, (*SUFFIXES, SHARD_SUFFIX, TMP_SUFFIX))
                return
            self._fs.invalidate_cache(self._root)
            for entry in with_retry(self._entries, is_transient):
                file = entry["name"].removeprefix(self._root).lstrip("/")
                yield StoredFile(file, int(entry["size"] or 0), modified_time(entry))
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._unusable(f"The folder {self.url} cannot be listed", error) from error
