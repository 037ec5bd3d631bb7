"""Checkpoints that come from elsewhere: OpenAI's are downloaded once per node and verified."""

from __future__ import annotations

import hashlib
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import IO, Any

import filelock
from fsspec.implementations.local import LocalFileSystem

from rayclip.errors import UsageError, WeightsUnavailable
from rayclip.io import retry
from rayclip.io.atomic_write import is_stale_tmp, temporary_name, write_atomically
from rayclip.io.remote import open_remote
from rayclip.io.retry import RetriesExhausted, with_retry
from rayclip.io.storage_errors import is_transient, reason
from rayclip.model.checkpoint import file_sha256

OFFICIAL_ADDRESS = "https://openaipublic.azureedge.net/clip/models"
MIRROR_VARIABLE = "RAYCLIP_WEIGHTS_MIRROR"
CUSTOM_CACHE = "~/.cache/rayclip"
DEFAULT_CACHE = "~/.cache/clip"  # OpenAI's own, so that what clip downloaded is used
TIMEOUT_S = 30.0
CHUNK_BYTES = 1 << 20

logger = logging.getLogger(__name__)


class _Unreadable(Exception):
    """An address cannot be read; the cause tells whether another try may help."""


def official_checkpoint(
    model_name: str, sha256: str, mirror: str | None = None, cache: Path | None = None
) -> str:
    """The local path of OpenAI's checkpoint, downloaded when no right one is there.

    The processes of a node take turns, so that one downloads and the others find the file. It
    appears under its name only when it is whole.

    Args:
        model_name: one of ``clip.available_models()``.
        sha256: of the checkpoint, in hexadecimal; an existing file is checked against it too.
        mirror: an http(s) or other fsspec URL, or a local folder, with files laid out as at
            :data:`OFFICIAL_ADDRESS`, which is the default.
        cache: the folder to keep it in; None takes :data:`DEFAULT_CACHE`.

    Raises:
        WeightsUnavailable: it cannot be read there or kept here, or it has another checksum.
    """
    path, address = _location(model_name, sha256, mirror, cache)
    try:
        if not _is_verified(path, sha256):  # before the lock: a cache may be read-only
            path.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(path.with_name(f"{path.name}.lock")):
                if not _is_verified(path, sha256):
                    _remove_stale_tmp(path.parent)
                    logger.info("Downloading %s to %s.", address, path)
                    download = partial(_write_atomically, path, partial(_download, address, sha256))
                    with_retry(download, is_transient, retry.RESTART)
    except (_Unreadable, RetriesExhausted) as error:
        raise _unavailable(address, error) from error
    except OSError as error:
        raise WeightsUnavailable(
            f"The weights from {address} cannot be kept as {path} ({reason(error)}): make sure "
            "that the folder is writable and has room."
        ) from error
    return str(path)


def check_official_available(
    model_name: str, sha256: str, mirror: str | None = None, cache: Path | None = None
) -> None:
    """Make sure that :func:`official_checkpoint` has a file here, or where to get it.

    Raises:
        WeightsUnavailable: neither; not even its beginning can be downloaded.
    """
    path, address = _location(model_name, sha256, mirror, cache)
    if path.is_file():
        return
    with closing(_chunks(address)) as chunks:
        try:
            next(chunks, None)
        except _Unreadable as error:
            raise _unavailable(address, error) from error


def fetch_checkpoint(url: str, storage_options: Mapping[str, Any]) -> str:
    """The local path of a copy of a user's checkpoint, named after its content.

    Raises:
        UsageError: it cannot be read.
    """
    folder = _custom_cache()
    temporary = folder / temporary_name()
    try:
        with open_remote(url, storage_options) as source, temporary.open("xb") as file:
            sha256 = _copy(_blocks(source), file)
        path = folder / f"{sha256}.pt"
        os.replace(temporary, path)
    except Exception as error:  # each storage has exceptions of its own
        raise UsageError(f"The weights {url} cannot be read: {reason(error)}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return str(path)


def store_checkpoint(content: bytes, sha256: str) -> str:
    """The local path of a checkpoint that came from another node, named after its content."""
    path = _custom_cache() / f"{sha256}.pt"
    if not _is_verified(path, sha256):
        _write_atomically(path, lambda file: file.write(content))
    return str(path)


def _custom_cache() -> Path:
    folder = Path(os.path.expanduser(CUSTOM_CACHE))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _location(
    model_name: str, sha256: str, mirror: str | None, cache: Path | None
) -> tuple[Path, str]:
    """Where OpenAI's checkpoint is kept, and its address."""
    file_name = model_name.replace("/", "-").replace("@", "-") + ".pt"
    folder = cache or Path(os.path.expanduser(DEFAULT_CACHE))
    return folder / file_name, f"{(mirror or OFFICIAL_ADDRESS).rstrip('/')}/{sha256}/{file_name}"


def _unavailable(address: str, error: Exception) -> WeightsUnavailable:
    return WeightsUnavailable(
        f"{address} cannot be read ({reason(error)}): check the network, or name a mirror or a "
        f"local folder with the same files in {MIRROR_VARIABLE}."
    )


def _is_verified(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(str(path)) == sha256


def _remove_stale_tmp(folder: Path) -> None:
    """Remove what downloads that were killed have left."""
    for file in folder.glob(".*.tmp"):
        if is_stale_tmp(file.name, time.time() - file.stat().st_mtime):
            file.unlink(missing_ok=True)


def _write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    write_atomically(LocalFileSystem(), str(path), 0, write)


def _download(address: str, sha256: str, file: IO[bytes]) -> None:
    """Write OpenAI's checkpoint to a file.

    Raises:
        _Unreadable: it cannot be read.
        WeightsUnavailable: it has another checksum.
        OSError: it cannot be written.
    """
    found = _copy(_chunks(address), file)
    if found != sha256:
        raise WeightsUnavailable(
            f"{address} gives another file than OpenAI published (SHA-256 {found}, expected "
            f"{sha256}): name a good copy in {MIRROR_VARIABLE}."
        )


def _copy(chunks: Iterator[bytes], file: IO[bytes]) -> str:
    """Write chunks to a file; gives their SHA-256."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        file.write(chunk)
    return digest.hexdigest()


def _chunks(address: str) -> Generator[bytes]:
    """What is at an address; none of its errors is an OSError, which means the local file.

    Raises:
        _Unreadable: whatever the network, the server or the storage raises.
    """
    is_http = address.lower().startswith(("http://", "https://"))
    try:
        if is_http:
            yield from _http_chunks(address)
        else:
            with open_remote(address, {}) as file:
                yield from _blocks(file)
    except Exception as error:  # each storage has exceptions of its own
        cause = error
        if type(error) is urllib.error.URLError and isinstance(error.reason, Exception):
            cause = error.reason  # which says whether it is transient
        raise _Unreadable(reason(cause)) from cause


def _http_chunks(address: str) -> Iterator[bytes]:
    """By urllib, which is always there and uses the proxies of the environment."""
    with urllib.request.urlopen(address, timeout=TIMEOUT_S) as response:
        yield from _blocks(response)
        if response.length:  # http.client says nothing
            raise ConnectionError(f"it ended {response.length} bytes early")


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    return iter(partial(file.read, CHUNK_BYTES), b"")
