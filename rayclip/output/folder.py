"""The folder of one model's features: what is made, read and listed there, in whichever form."""

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
from rayclip.io.listing import StoredFile, local_files, modified_of
from rayclip.io.remote import file_system, with_reason
from rayclip.io.retry import RetriesExhausted, with_retry
from rayclip.io.storage_errors import ErrorKind, is_transient, kind_of, reason, why_to_stop
from rayclip.output.done import DoneVideos
from rayclip.output.formats import SUFFIXES
from rayclip.output.rows import Work, Writer
from rayclip.output.shard_names import SHARD_SUFFIX

if TYPE_CHECKING:
    import pyarrow as pa

RUN_FILE = "run.json"
FAILURES_FILE = "failures.jsonl"


class FeatureFolder(ABC):
    """Where the features of one model go; cheap to send to another process.

    Attributes:
        url: a local path or an fsspec URL.
        unit: what its files of features are called, in the singular.
        discards_all: whether features can be taken back only all at once.
    """

    unit: str
    discards_all: bool

    def __init__(self, url: str, storage_options: Mapping[str, Any], nested: bool = False) -> None:
        """Name a folder; nothing is made or read yet.

        Args:
            url: a local path or an fsspec URL.
            storage_options: given to fsspec.
            nested: whether there are folders in it.

        Raises:
            UsageError: no storage is known under this URL's protocol.
        """
        try:
            self._fs, self._root = file_system(url, storage_options)
        except (ValueError, ImportError) as error:
            raise UsageError(f"The output_path {url} cannot be used: {error}.") from error
        self.url = url
        self._nested = nested

    @abstractmethod
    def name_of(self, video: str) -> str:
        """By what a video, as it was given, is known in this folder."""

    @abstractmethod
    def writer(self, videos: Sequence[str], extra_columns: pa.Table | None) -> Writer:
        """Who saves a group of videos.

        Args:
            videos: of the group, in order.
            carried: other columns of these, a row each, for formats that have a place for them.
        """

    @abstractmethod
    def done(self, listing: Iterable[StoredFile] | None = None) -> DoneVideos:
        """Find every complete video in one listing of the folder.

        Args:
            listing: what :meth:`files` gives, handed on; None lists the folder.

        Raises:
            UsageError, RunStopped: it cannot be listed or read.
        """

    @abstractmethod
    def discard(self, names: Iterable[str]) -> None:
        """Take back that these videos are done; with ``discards_all``, all that is there."""

    @abstractmethod
    def estimate_work(self, file: StoredFile) -> Work | None:
        """What a file tells, unopened, of the work of runs; None where it is none of theirs."""

    def where(self) -> tuple[Any, str]:
        """The fsspec file system that it is on, and its path there."""
        return self._fs, self._root

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            UsageError, RunStopped: it cannot be made.
        """
        try:
            with_retry(lambda: self._fs.makedirs(self._root, exist_ok=True), is_transient)
        except Exception as error:  # each storage has exceptions of its own
            raise self._unusable(f"The folder {self.url} cannot be made", error) from error

    def remove(self, stale_tmp: Iterable[str]) -> None:
        """Take away what :meth:`done` found that is of no use to anybody, as far as one may."""
        for name in stale_tmp:
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
        """Write ``failures.jsonl``; raises as :meth:`Writer.save`."""
        lines = [json.dumps(failure) + "\n" for failure in failures]
        self._put(FAILURES_FILE, "".join(lines).encode())

    def remove_files(self, files: Iterable[str]) -> None:
        """Remove files; those that are gone already are no trouble.

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
        if self._nested:  # by default a part that cannot be listed would be left out
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
            sentence = why_to_stop(error, self.url)
            if sentence is None:
                raise
            raise RunStopped(sentence) from error

    def _unusable(self, what: str, error: Exception) -> RayclipError:
        """The command is wrong where its folder can never be used, and else may be repeated."""
        if kind_of(error) in (ErrorKind.CREDENTIALS, ErrorKind.FULL):
            return RunStopped(str(why_to_stop(error, self.url)))
        kind = RunStopped if isinstance(error, RetriesExhausted) else UsageError
        return kind(f"{what}: {reason(error)}.")

    def files(self) -> Iterator[StoredFile]:
        """List the files of features, and temporary ones; streamed where the folder is local.

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
                yield StoredFile(file, int(entry["size"] or 0), modified_of(entry))
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._unusable(f"The folder {self.url} cannot be listed", error) from error
