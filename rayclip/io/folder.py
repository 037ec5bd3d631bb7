"""A folder on any storage: listing, reading, writing and removing its files."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import IO, Any

from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from rayclip.errors import RayclipError, RunStopped, UsageError
from rayclip.io.atomic_write import Write, write_atomically
from rayclip.io.concurrent_map import concurrent_map
from rayclip.io.listing import StoredFile, local_files, modified_time
from rayclip.io.remote import file_system, with_reason
from rayclip.io.retry import RetriesExhausted, with_retry
from rayclip.io.storage_errors import ErrorKind, classify_error, is_transient, reason, stop_reason


class Folder:
    """A folder; cheap to send to another process.

    Attributes:
        url: a local path or an fsspec URL.
    """

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
            raise UsageError(f"The folder {url} cannot be used: {error}.") from error
        self.url = url
        self._nested = nested
        self._existing_folders: set[str] = set()

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
            raise self.unusable(f"The folder {self.url} cannot be created", error) from error

    def remove(self, stale_tmp: Iterable[str]) -> None:
        """Remove stale temporary files, as far as permissions allow."""
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
        if self._nested:
            # fsspec's own would silently skip folders that cannot be listed
            strictly = {"on_error": "raise"} if _walks_to_find(self._fs) else {}
            return list(self._fs.find(self._root, detail=True, **strictly).values())
        return [e for e in self._fs.ls(self._root, detail=True) if e["type"] == "file"]

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def read(self, name: str) -> bytes | None:
        """Read a small file; None if it does not exist.

        Raises:
            UsageError, RunStopped: it cannot be read.
        """
        path = self._path(name)
        read = partial(with_reason, self._fs, path, lambda: self._fs.cat_file(path))
        try:
            return bytes(with_retry(read, is_transient))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self.unusable(f"{self.url}/{name} cannot be read", error) from error

    def put(self, name: str, content: bytes) -> None:
        """Write a small file atomically; raises the same errors as :meth:`write`."""
        self.write(name, len(content), lambda file: file.write(content))

    def write(self, name: str, size: int, write: Write) -> None:
        """Write a file atomically.

        Args:
            name: its name in the folder.
            size: its approximate size in bytes.
            write: writes the content; called again for each retry.

        Raises:
            RunStopped: the folder cannot be written; the message says why and what to do.
            Exception: any error of the storage that concerns only this file; it was not written.
        """
        self.persist(lambda: write_atomically(self._fs, self._path(name), size, write))

    def write_once(self, name: str, write: Write) -> int:
        """Write a file whose content can be produced only once, atomically.

        Retries need the content again. So a file for a remote storage is made on the local disk
        (``TMPDIR``) first.

        Args:
            name: its name in the folder.
            write: writes the content; a :class:`RayclipError` that it raises passes through.

        Returns:
            The size in bytes.

        Raises:
            RunStopped: it cannot be written.
        """
        is_local = isinstance(self._fs, LocalFileSystem)
        size = 0

        def write_and_measure(file: IO[bytes]) -> None:
            nonlocal size
            write(file)
            file.flush()
            size = file.seek(0, io.SEEK_END)

        try:
            if is_local:
                write_atomically(self._fs, self._path(name), 0, write_and_measure)
            else:
                with tempfile.NamedTemporaryFile(prefix="rayclip-") as file:
                    write_and_measure(file)
                    self._upload(file.name, name)
        except OSError as error:
            place = self.url if is_local else tempfile.gettempdir()
            raise self._unwritable(name, place, error) from error
        return size

    def _upload(self, local: str, name: str) -> None:
        try:
            self.persist(lambda: self._fs.put_file(local, self._path(name)))
        except RayclipError:
            raise
        except Exception as error:  # each storage has exceptions of its own
            raise self._unwritable(name, self.url, error) from error

    def _unwritable(self, name: str, place: str, error: Exception) -> RunStopped:
        what = f"{self.url}/{name} cannot be written"
        return RunStopped(stop_reason(error, place) or f"{what}: {reason(error)}.")

    def prepare_parent(self, name: str) -> None:
        """Create the folder of a file; raises the same errors as :meth:`write`."""
        path = self._path(name).rpartition("/")[0]
        if path not in self._existing_folders:  # some storages need several requests to check
            self.persist(lambda: self._fs.makedirs(path, exist_ok=True))
            self._existing_folders.add(path)

    def persist(self, change: Callable[[], object]) -> None:
        """Change the storage, with retries; raises the same errors as :meth:`write`."""
        try:
            with_retry(change, is_transient)
        except Exception as error:
            sentence = stop_reason(error, self.url)
            if sentence is None:
                raise
            raise RunStopped(sentence) from error

    def unusable(self, what: str, error: Exception) -> RayclipError:
        """Return RunStopped if a rerun may help, otherwise UsageError."""
        if classify_error(error) in (ErrorKind.CREDENTIALS, ErrorKind.FULL):
            return RunStopped(str(stop_reason(error, self.url)))
        kind = RunStopped if isinstance(error, RetriesExhausted) else UsageError
        return kind(f"{what}: {reason(error)}.")

    def listing(self, suffixes: tuple[str, ...]) -> Iterator[StoredFile]:
        """List the files with these suffixes, or more; a local folder is streamed.

        Raises:
            UsageError, RunStopped: it cannot be listed.
        """
        try:
            if isinstance(self._fs, LocalFileSystem):
                yield from local_files(self._root, suffixes)
                return
            self._fs.invalidate_cache(self._root)
            for entry in with_retry(self._entries, is_transient):
                file = entry["name"].removeprefix(self._root).lstrip("/")
                yield StoredFile(file, int(entry["size"] or 0), modified_time(entry))
        except FileNotFoundError:
            return
        except Exception as error:
            raise self.unusable(f"The folder {self.url} cannot be listed", error) from error


def _walks_to_find(fs: Any) -> bool:
    """Whether a storage finds files with fsspec's own walk from folder to folder; object stores
    have listings of their own, which do not take its options."""
    is_async = isinstance(fs, AsyncFileSystem)
    find = type(fs)._find if is_async else type(fs).find
    return find in (AsyncFileSystem._find, AbstractFileSystem.find)
