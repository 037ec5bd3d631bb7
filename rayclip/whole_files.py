"""Files that appear whole or not at all, on this machine's disks and on remote storages."""

from __future__ import annotations

import io
import os
import tempfile
import uuid
from collections.abc import Callable
from typing import IO, Any

from fsspec.implementations.local import LocalFileSystem

LARGE = 32 * 2**20  # bytes from which a file goes to a remote storage by way of a local disk

Write = Callable[[IO[bytes]], object]


def write_whole(fs: Any, path: str, size: int, write: Write) -> None:
    """Make a file, or take the place of one, so that nobody sees a part of it.

    Args:
        fs: the fsspec file system.
        path: on it, in a folder that exists.
        size: about how many bytes will be written.
        write: writes the content.

    Raises:
        Exception: what ``write`` or the storage raises. There is no new file then, except after an
            upload that broke off on a storage that shows files while they grow: SFTP or HDFS, but
            no object store.
    """
    if isinstance(fs, LocalFileSystem):
        _replace(path, write)
    elif size < LARGE:
        content = io.BytesIO()
        write(content)
        fs.pipe_file(path, content.getvalue())
    else:
        _upload(fs, path, write)


def _replace(path: str, write: Write) -> None:
    temporary = os.path.join(os.path.dirname(path), f".{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _upload(fs: Any, path: str, write: Write) -> None:
    # Not fs.open(path, "wb"): leaving its with-block by an exception publishes what was written.
    with tempfile.NamedTemporaryFile(prefix="rayclip-") as file:
        write(file)
        file.flush()
        fs.put_file(file.name, path)
