"""What a storage tells of a file without opening it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

MODIFIED = ("mtime", "LastModified", "last_modified", "updated", "created")
"""What storages of fsspec call the time of the last change."""


class StoredFile(NamedTuple):
    """A file of a folder.

    Attributes:
        path: in the folder.
        size: in bytes.
        modified: seconds since 1970; None where the storage does not tell.
    """

    path: str
    size: int
    modified: float | None


def modified_of(entry: Mapping[str, Any]) -> float | None:
    """When a file was written, from what fsspec's ``info`` or ``ls`` says of it."""
    for name in MODIFIED:
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
    """The files below a local folder whose names end so, streamed.

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
            except FileNotFoundError:  # another run took it away meanwhile
                continue
