"""Atomic writes: files appear complete or not at all, on local disks and remote storage."""

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

TMP_SUFFIX = ".tmp"
TEMPORARY = re.compile(r"\.(?P<host>.+)\.(?P<process>\d+)\.[0-9a-f]{32}\.tmp")
STALE_AFTER_S = 3600.0  # no write takes this long

SPOOL_BYTES = 32 * 2**20  # remote files of this size or more are spooled to a local disk first

Write = Callable[[IO[bytes]], object]


def write_atomically(fs: Any, path: str, size: int, write: Write) -> None:
    """Create or replace a file so that no reader sees a part of it.

    Args:
        fs: the fsspec file system.
        path: on ``fs``, in an existing folder.
        size: approximate bytes to be written.
        write: writes the content.

    Raises:
        Exception: whatever ``write`` or the storage raises. No new file exists then, unless an
            upload was interrupted on a storage that shows incomplete files: SFTP and HDFS, but no
            object store.
    """
    if isinstance(fs, LocalFileSystem):
        _replace(path, write)
    elif size < SPOOL_BYTES:
        content = io.BytesIO()
        write(content)
        fs.pipe_file(path, content.getvalue())
    else:
        _upload(fs, path, write)


def temporary_name() -> str:
    """A unique file name that identifies this process."""
    return f".{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex}{TMP_SUFFIX}"


def is_stale_tmp(name: str, age_s: float) -> bool:
    """Whether a file is one of our temporary files and its writer is gone.

    A writer on this machine is checked by its process ID. A writer on another machine can only be
    judged by the age of its file. If that judgement is wrong, the writer finds its file missing
    and writes it again.

    Args:
        name: of the file, without folders.
        age_s: seconds since the last write to it.
    """
    match = TEMPORARY.fullmatch(name)
    if match is None:
        return False
    is_local = match["host"] == socket.gethostname()
    return age_s > STALE_AFTER_S or (is_local and not _is_alive(int(match["process"])))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's process
        return True
    return True


def _replace(path: str, write: Write) -> None:
    temporary = os.path.join(os.path.dirname(path), temporary_name())
    try:
        with open(temporary, "x+b") as file:
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
        raise OSError(errno.ESTALE, "it was removed while it was being written", path) from None


def _upload(fs: Any, path: str, write: Write) -> None:
    # Not fs.open(path, "wb"): an exception inside its with-block publishes the incomplete file.
    with tempfile.NamedTemporaryFile(prefix="rayclip-") as file:
        try:
            write(file)
            file.flush()
        except OSError as error:
            if error.errno:  # the local disk failed (it may be full), not the storage
                error.filename = file.name
            raise
        fs.put_file(file.name, path)
