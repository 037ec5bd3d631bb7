"""Files on remote storage, read through fsspec with retries."""

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
from rayclip.io.storage_errors import is_transient, is_unexplained_refusal

T = TypeVar("T")

# 40 MiB of memory per open remote file. libav reads forward, but first jumps to an index at the
# end. That block may be evicted and read again: at most a tenth more of the file is transferred.
BLOCK_BYTES = 4 * 2**20
MAX_CACHED_BLOCKS = 10
SMALL_BLOCK_BYTES = 2**20  # if only a part of a file is read, of which some blocks are not needed
COMMON_CACHES = ("readahead", "bytes")  # fsspec's defaults, which drop the beginning after a jump

# Files of these protocols choose what else is opened and, at least until fsspec 2026.3, what code
# is run.
INDIRECT_PROTOCOLS = ("reference",)

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
"""The packages to install for URLs that fsspec cannot open by itself."""

CONNECT_TIMEOUT_S = 30.0
SILENCE_TIMEOUT_S = 60.0


def file_system(url: str, storage_options: Mapping[str, Any]) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path on it.

    Many clients retry by themselves, some in nested loops. We turn that off if they let us, so
    that their retries do not multiply with ours.

    Raises:
        ValueError, ImportError: no storage is available for such URLs.
    """
    options = dict(storage_options)
    for part in url.split("::"):
        if "://" in part:
            check_protocol(part.partition("://")[0])
    if _is_http(url):
        import aiohttp

        # aiohttp's default limits a whole response to five minutes, even while data arrive
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_TIMEOUT_S
        )
        options["client_kwargs"] = {"timeout": timeout, **options.get("client_kwargs", {})}
    elif url.startswith(("s3://", "s3a://")):
        # s3fs tries five times, and botocore five times in each: 45 s if the answer is "slow down"
        once = {"retries": {"total_max_attempts": 1}}
        options["config_kwargs"] = {**once, **options.get("config_kwargs", {})}
    found: tuple[Any, str] = fsspec.core.url_to_fs(url, **options)
    return found


def check_protocol(protocol: str) -> None:
    """Check that a protocol is supported, without contacting any storage.

    Raises:
        ValueError: no storage has this protocol.
        ImportError: its package is missing; the message names it.
    """
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        if (package := PACKAGES.get(protocol)) is None:
            raise  # fsspec's own message lists the protocols that it supports
        sentence = f"{protocol}:// needs a package that is missing: pip install {package}"
        raise ImportError(sentence) from error


@contextmanager
def open_remote(
    url: str,
    storage_options: Mapping[str, Any],
    on_progress: Callable[[], object] | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[BinaryIO]:
    """Open a file for reading. If it can seek, failed requests are retried.

    Args:
        url: of any storage that fsspec supports.
        storage_options: passed to fsspec.
        on_progress: called before each retry.
        block_bytes: how much is requested at a time; the next block is requested ahead.

    Raises:
        BadVideo: the protocol is refused.
    """
    _refuse_indirection(url)
    fs, path = file_system(url, storage_options)
    if _is_http(url):
        file = _open_http(fs, path)
    else:
        file = with_reason(fs, path, lambda: fs.open(path, "rb"))
    closed = threading.Event()

    def wait(seconds: float) -> bool:
        if on_progress is not None:
            on_progress()
        return closed.wait(seconds)

    def fetch(start: int, end: int) -> bytes:
        return with_retry(lambda: _read_range(file, start, end), is_transient, wait=wait)

    try:
        if (
            isinstance(file, AbstractBufferedFile)
            and file.size
            and file.cache.name in COMMON_CACHES  # not every storage's open() accepts a cache
        ):
            file.cache = BackgroundBlockCache(block_bytes, fetch, file.size, MAX_CACHED_BLOCKS)
        yield file
    finally:
        closed.set()  # closing waits for the block that is prefetched
        file.close()


def _refuse_indirection(url: str) -> None:
    for part in url.split("::"):
        protocol = part.partition("://")[0]
        if protocol in INDIRECT_PROTOCOLS:
            raise BadVideo("open", Code.REFUSED_PROTOCOL, f"{protocol}:// is not for videos")


def _read_range(file: Any, start: int, end: int) -> bytes:
    data: bytes = file._fetch_range(start, end)
    expected = min(end, file.size) - start
    if len(data) < expected:  # libav would take this for the end of the file
        raise ConnectionError(f"received only {len(data)} of {expected} bytes")
    return data


def with_reason(fs: Any, path: str, call: Callable[[], T]) -> T:
    """Return ``call()``; if a storage refuses it without a reason, raise the reason.

    Raises:
        Exception: from ``call``, or with the reason from reading one byte. S3 explains a refused
            read, but not a refused request for a file's size.
    """
    try:
        return call()
    except Exception as error:
        if is_unexplained_refusal(error):
            fs.cat_file(path, start=0, end=1)  # fails with the reason
        raise


def _open_http(fs: Any, path: str) -> Any:
    """A seekable file if the server supports ranges; otherwise the stream of one response."""
    try:
        file = fs.open(path, "rb")
    except FileNotFoundError as error:  # fsspec raises this for any failure
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
    except ValueError:  # the server sent the whole file
        file.close()
        return fs.open(path, "rb", block_size=0)
    return file


def _is_http(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))
