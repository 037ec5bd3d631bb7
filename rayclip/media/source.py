"""Open a video source, wherever it is, for libav to read from.

libav gets bytes and never a name. Names can mean protocols, patterns of pictures and decoders of
playlists to it, and an error of the storage would look to it like the end of the file.
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
from rayclip.io.storage_errors import ErrorKind, is_transient, kind_of, reason

VideoSource = str | os.PathLike[str] | BinaryIO
"""A local path, an fsspec URL, or a binary file object that is read forward."""

NO_OTHER_FILES = {"protocol_whitelist": ""}
"""``container_options`` of ``av.open``: libav opens nothing that is named inside a video."""

HEAD_BYTES = 1024
PLAYLIST = re.compile(rb"\s*(#EXTM3U|ffconcat version|(<\?xml.*)?<MPD)", re.DOTALL)

FIRST_BOXES = {b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"uuid"}
MAX_BOXES_BYTES = 2**20  # an index further on than that counts as last


class Reader:
    """A file as ``av.open`` takes it, which remembers the error that ended its reading.

    PyAV hands most exceptions of a file on, but takes an ``EOFError`` for the end of the video,
    and drops a ``KeyboardInterrupt``.

    Attributes:
        error: what reading failed with; None while all is well.
    """

    def __init__(self, file: BinaryIO, moved: Callable[[], object] | None = None) -> None:
        self.error: BaseException | None = None
        self._file = file
        self._moved = moved
        self._ahead = b""
        self._seekable = can_seek(file)
        if self._seekable:
            file.seek(0)

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end, and none after an error.

        Raises:
            VideoError: they could not be read (stage ``read``).
        """
        if self.error is not None:  # libav tries again, and PyAV prints what it cannot raise
            return b""
        try:
            return self._next(size)
        except Exception as error:  # each storage has exceptions of its own
            self.error = _read_failed(error)
            raise self.error from error
        except BaseException as error:
            self.error = error
            raise _read_failed(error) from error

    def peek(self, size: int) -> bytes:
        """The next ``size`` bytes, which stay to be read; fewer where the file ends."""
        while len(self._ahead) < size and (data := self._take(size - len(self._ahead))):
            self._ahead += data
        return self._ahead[:size]

    def copy_to(self, file: BinaryIO) -> None:
        """Write all that is left to another file."""
        while data := self._next(BLOCK_BYTES):
            file.write(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go elsewhere and say where; -1 if there is no such place, as a broken index may want."""
        try:
            position = self._file.seek(offset, whence)
        except Exception:
            return -1
        except BaseException as error:
            self.error = error
            return -1
        self._ahead = b""
        return position

    def tell(self) -> int:
        return self._file.tell() - len(self._ahead)

    def seekable(self) -> bool:
        return self._seekable

    def _next(self, size: int) -> bytes:
        if not self._ahead:
            return self._take(size)
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data

    def _take(self, size: int) -> bytes:
        data = self._file.read(size)
        if not isinstance(data, bytes):  # None: a file that does not block
            raise TypeError(f"read() gave {type(data).__name__} and not bytes")
        if len(data) > size:  # PyAV would write beyond its buffer
            raise ValueError(f"read({size}) gave {len(data)} bytes")
        if self._moved is not None:
            self._moved()
        return data


@contextmanager
def readable(
    source: VideoSource,
    storage_options: Mapping[str, Any],
    moved: Callable[[], object] | None = None,
) -> Iterator[Reader]:
    """What ``av.open`` can read a source with, together with :data:`NO_OTHER_FILES`.

    A file object is read from its beginning if it can seek, else from where it is, and left open.
    Remote files are read about once and not copied to disk, except mp4 files whose index comes
    last on a storage that cannot seek. Failed requests to remote storage are retried, except for a
    stream that breaks off in the middle: its error is transient
    (:func:`rayclip.io.storage_errors.is_transient`).

    Args:
        source: a local path, an fsspec URL or a binary file object.
        storage_options: given to fsspec for URLs.
        moved: called whenever bytes have arrived.

    Raises:
        BadVideo: there is no such file, or it is plainly no video (stage ``open``).
        VideoError: it could not be read (stage ``read``): not the video's fault. At the end of
            the block, too, if libav took a failure for the end of the file.
    """
    begin = partial(_begin, source, storage_options, moved)
    with _opening():
        # a file object is in whatever place a failure left it
        reader, stack = with_retry(begin, is_transient) if _is_url(source) else begin()
    with stack:
        try:
            yield reader
        finally:
            if reader.error is not None:
                raise reader.error


def _begin(
    source: VideoSource,
    storage_options: Mapping[str, Any],
    moved: Callable[[], object] | None,
) -> tuple[Reader, ExitStack]:
    """A source at its beginning, and what is to be closed after it."""
    with ExitStack() as stack:
        if _is_url(source):
            opened = open_remote(os.fspath(source), storage_options, moved)
            file = stack.enter_context(opened)
        elif isinstance(source, str | os.PathLike):
            file = stack.enter_context(closing(_open_local(os.fspath(source))))
        else:
            file = source
        reader = Reader(file, moved)
        _check_head(reader.peek(HEAD_BYTES))
        if not reader.seekable() and _index_is_last(reader):
            spool = stack.enter_context(tempfile.TemporaryFile())
            reader.copy_to(spool)
            reader = Reader(spool, moved)
        return reader, stack.pop_all()


@contextmanager
def _opening() -> Iterator[None]:
    """Give what goes wrong its name."""
    try:
        yield
    except FileNotFoundError:
        raise BadVideo("open", Code.NOT_FOUND, "there is no such file") from None
    except IsADirectoryError:
        raise BadVideo(
            "open",
            Code.IS_A_FOLDER,
            "this is a folder, not a video: name the videos in it, or make a video of its pictures",
        ) from None
    except VideoError:
        raise
    except Exception as error:  # each storage has exceptions of its own
        raise _read_failed(error) from error


def _read_failed(error: BaseException) -> VideoError:
    fault, message = kind_of(error), f"reading failed: {reason(error)}"
    if fault is ErrorKind.CREDENTIALS:
        return CredentialsRefused("read", Code.ACCESS_DENIED, message)
    code = Code.ACCESS_DENIED if fault is ErrorKind.DENIED else Code.READ_FAILED
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


def _open_local(path: str) -> BinaryIO:
    if "\0" in path:
        raise FileNotFoundError(path)
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a pipe may wait for ever
        raise BadVideo("open", Code.NOT_A_FILE, "this is not a regular file")
    return open(path, "rb", buffering=0)


def can_seek(file: BinaryIO) -> bool:
    """Whether a file can go back, as PyAV asks; fsspec's streams say so although they cannot."""
    if isinstance(file, AbstractBufferedFile):
        return file.size is not None
    if not hasattr(file, "seek") or not hasattr(file, "tell"):
        return False
    return not hasattr(file, "seekable") or file.seekable()


def _index_is_last(reader: Reader) -> bool:
    """Whether this is an mp4 or mov file whose media data come before their index."""
    position = 0
    while position <= MAX_BOXES_BYTES:
        box = reader.peek(position + 16)[position:]
        kind = box[4:8]
        if kind in (b"moov", b"mdat") or len(box) < 8:
            return kind == b"mdat"
        if position == 0 and kind not in FIRST_BOXES:
            return False
        size = int.from_bytes(box[:4] if box[:4] != b"\0\0\0\1" else box[8:])
        if size < 8:  # it reaches to the end of the file, or is broken
            return False
        position += size
    return True
