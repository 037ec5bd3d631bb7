"""Metadata that a storage reports without opening a file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

MODIFIED_KEYS = ("mtime", "LastModified", "last_modified", "updated", "created")
"""The names that fsspec's storages use for the time of the last change."""


class StoredFile(NamedTuple):
    """A file in a folder.

    Attributes:
        path: relative to the folder.
        size: bytes.
        modified: seconds since 1970; None if the storage does not report it.
    """

    path: str
    size: int
    modified: float | None


def modified_time(entry: Mapping[str, Any]) -> float | None:
    """The time of the last change in seconds since 1970, from fsspec's ``info`` or ``ls``."""
    for name in MODIFIED_KEYS:
        value = entry.get(name)
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                continue
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None


def local_files(root: str, suffixes: tuple[str, ...], folder: str = "") -> Iterator[StoredFile]:
    """Yield the files below a local folder whose names end in one of these suffixes.

    Raises:
        OSError: a folder cannot be listed.
    """
    with os.scandir(os.path.join(root, folder)) as entries:
        for entry in entries:
            path = os.path.join(folder, entry.name)
            try:
                if entry.is_dir():
                    yield from local_files(root, suffixes, path)
                elif entry.name.endswith(suffixes):
                    status = entry.stat()
                    yield StoredFile(path, status.st_size, status.st_mtime)
            except FileNotFoundError:  # removed by another run in the meantime
                continue
