"""Open a video source, local or remote, for libav to read from.

libav gets bytes and never a name. It can take a name for a protocol, an image pattern or a
playlist, and it would take a storage error for the end of the file.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any, BinaryIO, TypeGuard

from fsspec.spec import AbstractBufferedFile

from rayclip.errors import BadVideo, Code, CredentialsRefused, VideoError
from rayclip.io.remote import BLOCK_BYTES, open_remote
from rayclip.io.retry import with_retry
from rayclip.io.storage_errors import ErrorKind, classify_error, is_transient, reason

VideoSource = str | os.PathLike[str] | BinaryIO
"""A local path, an fsspec URL, or a binary file object that is read forward."""

NO_OTHER_FILES = {"protocol_whitelist": ""}
"""``container_options`` of ``av.open``: libav must not open files that a video refers to."""

HEAD_BYTES = 1024
PLAYLIST = re.compile(rb"\s*(#EXTM3U|ffconcat version|(<\?xml.*)?<MPD)", re.DOTALL)

FIRST_BOXES = {b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"uuid"}
MAX_BOXES_BYTES = 2**20  # how far to search for the index


class Reader:
    """A file for ``av.open`` that remembers the error that ended reading.

    PyAV propagates most exceptions of a file, but takes an ``EOFError`` for the end of the video
    and swallows a ``KeyboardInterrupt``.

    Attributes:
        error: why reading failed; None if it did not.
    """

    def __init__(self, file: BinaryIO, on_progress: Callable[[], object] | None = None) -> None:
        self.error: BaseException | None = None
        self._file = file
        self._on_progress = on_progress
        self._peeked = b""
        self._seekable = can_seek(file)
        if self._seekable:
            file.seek(0)

    def read(self, size: int) -> bytes:
        """Read at most ``size`` bytes; none at the end, and none after an error.

        Raises:
            VideoError: the source could not be read (stage ``read``).
        """
        if self.error is not None:  # libav retries, and PyAV prints errors that it cannot raise
            return b""
        try:
            return self._next(size)
        except Exception as error:  # each storage has its own exceptions
            self.error = _read_failed(error)
            raise self.error from error
        except BaseException as error:
            self.error = error
            raise _read_failed(error) from error

    def peek(self, size: int) -> bytes:
        """The next ``size`` bytes without consuming them; fewer at the end of the file."""
        while len(self._peeked) < size and (data := self._read_file(size - len(self._peeked))):
            self._peeked += data
        return self._peeked[:size]

    def copy_to(self, file: BinaryIO) -> None:
        """Write the remaining bytes to another file."""
        while data := self._next(BLOCK_BYTES):
            file.write(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Seek and return the new position; -1 if it is invalid (a broken index may ask for it)."""
        try:
            position = self._file.seek(offset, whence)
        except Exception:
            return -1
        except BaseException as error:
            self.error = error
            return -1
        self._peeked = b""
        return position

    def tell(self) -> int:
        return self._file.tell() - len(self._peeked)

    def seekable(self) -> bool:
        return self._seekable

    def _next(self, size: int) -> bytes:
        if not self._peeked:
            return self._read_file(size)
        data, self._peeked = self._peeked[:size], self._peeked[size:]
        return data

    def _read_file(self, size: int) -> bytes:
        data = self._file.read(size)
        if not isinstance(data, bytes):  # None: a non-blocking file
            raise TypeError(f"read() returned {type(data).__name__} instead of bytes")
        if len(data) > size:  # PyAV would write beyond its buffer
            raise ValueError(f"read({size}) returned {len(data)} bytes")
        if self._on_progress is not None:
            self._on_progress()
        return data


@contextmanager
def open_reader(
    source: VideoSource,
    storage_options: Mapping[str, Any],
    on_progress: Callable[[], object] | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[Reader]:
    """Open a source for ``av.open``, which must also be given :data:`NO_OTHER_FILES`.

    A file object is read from its beginning if it can seek, otherwise from its current position,
    and is left open. Remote files are read about once and not copied to disk, except mp4 files
    whose index comes last if the storage cannot seek. Failed requests to remote storage are
    retried. A stream that cannot seek and is interrupted raises an error that is transient
    (:func:`rayclip.io.storage_errors.is_transient`).

    Args:
        source: a local path, an fsspec URL or a binary file object.
        storage_options: passed to fsspec for URLs.
        on_progress: called whenever bytes have arrived, and before each retry.
        block_bytes: how much of a remote file is requested at a time.

    Raises:
        BadVideo: there is no such file, or it is plainly not a video (stage ``open``).
        VideoError: the source could not be read (stage ``read``). Also raised at the end of the
            block, if libav took a failure for the end of the file.
    """
    open_source = partial(_open, source, storage_options, on_progress, block_bytes)
    with translated_errors():
        # a file object is not retried: its position after a failure is unknown
        reader, stack = with_retry(open_source, is_transient) if _is_url(source) else open_source()
    with stack:
        try:
            yield reader
        finally:
            if reader.error is not None:
                raise reader.error


def _open(
    source: VideoSource,
    storage_options: Mapping[str, Any],
    on_progress: Callable[[], object] | None,
    block_bytes: int,
) -> tuple[Reader, ExitStack]:
    """A source at its beginning, and a stack that closes it."""
    with ExitStack() as stack:
        if _is_url(source):
            opened = open_remote(os.fspath(source), storage_options, on_progress, block_bytes)
            file = stack.enter_context(opened)
        elif isinstance(source, str | os.PathLike):
            file = stack.enter_context(closing(open_local(os.fspath(source))))
        else:
            file = source
        reader = Reader(file, on_progress)
        _check_head(reader.peek(HEAD_BYTES))
        if not reader.seekable() and _index_is_last(reader):
            spool = stack.enter_context(tempfile.TemporaryFile())
            reader.copy_to(spool)
            reader = Reader(spool, on_progress)
        return reader, stack.pop_all()


@contextmanager
def translated_errors() -> Iterator[None]:
    """Convert exceptions of the source into errors of a video."""
    try:
        yield
    except FileNotFoundError:
        raise BadVideo("open", Code.NOT_FOUND, "there is no such file") from None
    except IsADirectoryError:
        raise BadVideo(
            "open",
            Code.IS_A_FOLDER,
            "this is a folder, not a video: name the videos in it, or make a video of its images",
        ) from None
    except VideoError:
        raise
    except Exception as error:  # each storage has its own exceptions
        raise _read_failed(error) from error


def _read_failed(error: BaseException) -> VideoError:
    kind, message = classify_error(error), f"reading failed: {reason(error)}"
    if kind is ErrorKind.CREDENTIALS:
        return CredentialsRefused("read", Code.ACCESS_DENIED, message)
    code = Code.ACCESS_DENIED if kind is ErrorKind.DENIED else Code.READ_FAILED
    return VideoError("read", code, message)


def _is_url(source: VideoSource) -> TypeGuard[str | os.PathLike[str]]:
    return isinstance(source, str | os.PathLike) and "://" in os.fspath(source)


def _check_head(head: bytes) -> None:
    if not head:
        raise BadVideo("open", Code.EMPTY_FILE, "the file is empty")
    if PLAYLIST.match(head):
        raise BadVideo(
            "open", Code.IS_A_PLAYLIST, "this is a playlist, not a video: name the videos in it"
        )


def open_local(path: str) -> BinaryIO:
    """Open a local file; raises the errors that :func:`translated_errors` translates."""
    if "\0" in path:
        raise FileNotFoundError(path)
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a pipe may block forever
        raise BadVideo("open", Code.NOT_A_FILE, "this is not a regular file")
    return open(path, "rb", buffering=0)


def can_seek(file: BinaryIO) -> bool:
    """Whether a file can seek, judged as in PyAV, except that fsspec's streams wrongly claim it."""
    if isinstance(file, AbstractBufferedFile):
        return file.size is not None
    if not hasattr(file, "seek") or not hasattr(file, "tell"):
        return False
    return not hasattr(file, "seekable") or file.seekable()


def can_read_twice(source: VideoSource) -> bool:
    """Whether a source can be opened again, or can seek back to its beginning."""
    return isinstance(source, str | os.PathLike) or can_seek(source)


def _index_is_last(reader: Reader) -> bool:
    """Whether this is an mp4 or mov file whose index comes after the media data."""
    position = 0
    while position <= MAX_BOXES_BYTES:
        box = reader.peek(position + 16)[position:]
        kind = box[4:8]
        if kind in (b"moov", b"mdat") or len(box) < 8:
            return kind == b"mdat"
        if position == 0 and kind not in FIRST_BOXES:
            return False
        size = int.from_bytes(box[:4] if box[:4] != b"\0\0\0\1" else box[8:])
        if size < 8:  # extends to the end of the file, or is broken
            return False
        position += size
    return True
