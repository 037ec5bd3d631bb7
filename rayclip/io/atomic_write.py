"""Files that appear whole or not at all, on this machine's disks and on remote storages."""

from __future__ import annotations

import errno
import io
import os
import re
import socket
import tempfile
import uuid
from collections.abc import Callable
from typing import IO, Any

from fsspec.implementations.local import LocalFileSystem

TMP_SUFFIX = ".tmp"  # how the names of temporary files end
TEMPORARY = re.compile(r"\.(?P<host>.+)\.(?P<process>\d+)\.[0-9a-f]{32}\.tmp")
OLD_S = 3600.0  # no file takes that long to write

LARGE = 32 * 2**20  # bytes from which a file goes to a remote storage by way of a local disk

Write = Callable[[IO[bytes]], object]


def write_atomically(fs: Any, path: str, size: int, write: Write) -> None:
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


def temporary_name() -> str:
    """A name for a file of this process that nobody else has."""
    return f".{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex}{TMP_SUFFIX}"


def is_stale_tmp(name: str, age_s: float) -> bool:
    """Whether a file is a temporary one of ours that nobody will ever finish.

    It is, where its process was on this machine and is no more, or where it is old: of other
    machines nothing else is known. Should that err, the writer finds its file gone, and writes it
    again.

    Args:
        name: of the file, without folders.
        age_s: seconds since it was last written to.
    """
    found = TEMPORARY.fullmatch(name)
    if found is None:
        return False
    here = found["host"] == socket.gethostname()
    return age_s > OLD_S or (here and not _is_alive(int(found["process"])))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


def _replace(path: str, write: Write) -> None:
    temporary = os.path.join(os.path.dirname(path), temporary_name())
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        _rename(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _rename(temporary: str, path: str) -> None:
    try:
        os.replace(temporary, path)
    except FileNotFoundError:  # see is_stale_tmp
        raise OSError(errno.ESTALE, "it was taken away while it was written", path) from None


def _upload(fs: Any, path: str, write: Write) -> None:
    # Not fs.open(path, "wb"): leaving its with-block by an exception publishes what was written.
    with tempfile.NamedTemporaryFile(prefix="rayclip-") as file:
        try:
            write(file)
            file.flush()
        except OSError as error:
            if error.errno:  # it is this disk that is full, and not the storage
                error.filename = file.name
            raise
        fs.put_file(file.name, path)
