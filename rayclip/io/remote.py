"""Files on remote storages, read through fsspec with patience."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeVar

import fsspec
from fsspec.caching import BackgroundBlockCache
from fsspec.spec import AbstractBufferedFile

from rayclip.errors import BadVideo, Code
from rayclip.io.retry import with_retry
from rayclip.io.storage_errors import gives_no_reason, is_transient

T = TypeVar("T")

# Memory per open remote file: 40 MiB. libav reads forward, but first jumps to an index at the end:
# the block of the index is read again after so many others, at most a tenth of the file.
BLOCK_BYTES = 4 * 2**20
BLOCKS = 10
COMMON_CACHES = ("readahead", "bytes")  # fsspec's own choices, which lose the beginning to a jump

# Their files say what else is opened, and until fsspec 2026.3 at least, what code is run.
INDIRECT = ("reference",)

PACKAGES = {
    "http": "'rayclip[http]'",
    "https": "'rayclip[http]'",
    "s3": "'rayclip[s3]'",
    "s3a": "'rayclip[s3]'",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "adl": "adlfs",
}
"""What pip has to install for URLs that fsspec cannot serve by itself."""

CONNECT_TIMEOUT_S = 30.0
SILENCE_TIMEOUT_S = 60.0


def file_system(url: str, storage_options: Mapping[str, Any]) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path on it.

    Storages try again by themselves, some in loops within loops. What we can tell not to, we do:
    else our patience and theirs would multiply.

    Raises:
        ValueError, ImportError: there is no storage for such URLs.
    """
    options = dict(storage_options)
    for part in url.split("::"):
        if "://" in part:
            refuse_unknown(part.partition("://")[0])
    if _is_http(url):
        import aiohttp

        # aiohttp's own is five minutes for a whole answer, however much of it has come
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_TIMEOUT_S
        )
        options["client_kwargs"] = {"timeout": timeout, **options.get("client_kwargs", {})}
    elif url.startswith(("s3://", "s3a://")):
        # s3fs tries five times, and with each botocore five: 45 s where all answers are "slow down"
        once = {"retries": {"total_max_attempts": 1}}
        options["config_kwargs"] = {**once, **options.get("config_kwargs", {})}
    found: tuple[Any, str] = fsspec.core.url_to_fs(url, **options)
    return found


def refuse_unknown(protocol: str) -> None:
    """Make sure that there is a storage for URLs of a protocol, without asking it anything.

    Raises:
        ValueError: there is none.
        ImportError: its package is missing; the sentence says which.
    """
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        if (package := PACKAGES.get(protocol)) is None:
            raise  # fsspec's own sentence names what it knows
        sentence = f"{protocol}:// needs a package that is missing: pip install {package}"
        raise ImportError(sentence) from error


@contextmanager
def open_remote(
    url: str, storage_options: Mapping[str, Any], moved: Callable[[], object] | None = None
) -> Iterator[BinaryIO]:
    """Open a file for reading. Where it can seek, a part that cannot be had is asked for again.

    Args:
        url: of a storage that fsspec knows.
        storage_options: given to fsspec.
        moved: called while a storage is awaited.

    Raises:
        BadVideo: its protocol is refused.
    """
    _refuse_indirection(url)
    fs, path = file_system(url, storage_options)
    if _is_http(url):
        file = _open_http(fs, path)
    else:
        file = with_reason(fs, path, lambda: fs.open(path, "rb"))
    closed = threading.Event()

    def wait(seconds: float) -> bool:
        if moved is not None:
            moved()
        return closed.wait(seconds)

    def fetch(start: int, end: int) -> bytes:
        return with_retry(lambda: _part(file, start, end), is_transient, wait=wait)

    try:
        if (
            isinstance(file, AbstractBufferedFile)
            and file.size
            and file.cache.name in COMMON_CACHES  # not every storage's open() takes a choice
        ):
            file.cache = BackgroundBlockCache(BLOCK_BYTES, fetch, file.size, BLOCKS)
        yield file
    finally:
        closed.set()  # closing waits for the part that is read ahead
        file.close()


def _refuse_indirection(url: str) -> None:
    for part in url.split("::"):
        protocol = part.partition("://")[0]
        if protocol in INDIRECT:
            raise BadVideo("open", Code.REFUSED_PROTOCOL, f"{protocol}:// is not for videos")


def _part(file: Any, start: int, end: int) -> bytes:
    data: bytes = file._fetch_range(start, end)
    wanted = min(end, file.size) - start
    if len(data) < wanted:  # to libav it would be the end of the file
        raise ConnectionError(f"only {len(data)} of {wanted} bytes came")
    return data


def with_reason(fs: Any, path: str, call: Callable[[], T]) -> T:
    """Do something with a file that may begin with asking for its size.

    Raises:
        Exception: why not, even where a storage does not say so at first.
    """
    try:
        return call()
    except Exception as error:
        if gives_no_reason(error):
            fs.cat_file(path, start=0, end=1)  # which fails with the reason
        raise


def _open_http(fs: Any, path: str) -> Any:
    """A file that can seek if the server gives ranges, else the stream of its one answer."""
    try:
        file = fs.open(path, "rb")
    except FileNotFoundError as error:  # fsspec says so of whatever goes wrong
        cause = error.__cause__
        if cause is None or getattr(cause, "status", None) in (404, 410):
            raise
        raise cause from cause.__cause__
    if not file.size:
        return file
    try:
        file.seek(file.size - 1)
        file.read(1)
        file.seek(0)
    except ValueError:  # the server answers with the whole file
        file.close()
        return fs.open(path, "rb", block_size=0)
    return file


def _is_http(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))
