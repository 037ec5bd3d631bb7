"""Checkpoints that come from elsewhere: OpenAI's are downloaded once per node and verified."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import fsspec

from rayclip.errors import UsageError, WeightsUnavailable
from rayclip.model.checkpoint import sha256_of

OFFICIAL_ADDRESS = "https://openaipublic.azureedge.net/clip/models"
MIRROR_VARIABLE = "RAYCLIP_WEIGHTS_MIRROR"
CUSTOM_CACHE = "~/.cache/rayclip"
DEFAULT_CACHE = "~/.cache/clip"  # OpenAI's own, so that what clip downloaded is used
TIMEOUT_S = 30.0
RETRY_PAUSES_S = (1.0, 2.0)
CHUNK_BYTES = 1 << 20

logger = logging.getLogger(__name__)


class _Interrupted(Exception):
    """A download failed in a way that another try may mend."""


def official_checkpoint(
    model_name: str, sha256: str, mirror: str | None = None, cache: Path | None = None
) -> str:
    """The local path of OpenAI's checkpoint, downloaded when no right one is there.

    The processes of a node take turns, so that one downloads and the others find the file. It
    appears under its name only when it is whole.

    Args:
        model_name: one of ``clip.available_models()``.
        sha256: of the checkpoint, in hexadecimal; a file that is there is held against it too.
        mirror: an http(s) or other fsspec URL, or a local folder, with files laid out as at
            :data:`OFFICIAL_ADDRESS`, which is the default.
        cache: the folder to keep it in; None takes :data:`DEFAULT_CACHE`.

    Raises:
        WeightsUnavailable: it cannot be read there or kept here, or it has another checksum.
    """
    path, address = _places(model_name, sha256, mirror, cache)
    try:
        if not _is_right(path, sha256):  # before the lock: a cache may be for reading only
            path.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(path.with_name(f"{path.name}.lock")):
                if not _is_right(path, sha256):
                    _download(address, sha256, path)
    except OSError as error:
        raise WeightsUnavailable(
            f"The weights from {address} cannot be kept as {path} ({_reason(error)}): make sure "
            "that the folder is writable and has room."
        ) from error
    return str(path)


def look_for_official(
    model_name: str, sha256: str, mirror: str | None = None, cache: Path | None = None
) -> None:
    """Make sure that :func:`official_checkpoint` has a file here, or where to get it.

    Raises:
        WeightsUnavailable: neither; not even its beginning can be downloaded.
    """
    path, address = _places(model_name, sha256, mirror, cache)
    if path.is_file():
        return
    with closing(_chunks(address)) as chunks:
        try:
            next(chunks, None)
        except _Interrupted as error:
            raise _unreachable(address, error) from error


def fetched_checkpoint(url: str, storage_options: Mapping[str, Any]) -> str:
    """The local path of a copy of a user's checkpoint, called after its content.

    Raises:
        UsageError: it cannot be read.
    """
    folder = Path(os.path.expanduser(CUSTOM_CACHE))
    temporary = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with fsspec.open(url, "rb", **storage_options) as file:
            sha256 = _write(iter(partial(file.read, CHUNK_BYTES), b""), temporary)
        path = folder / f"{sha256}.pt"
        os.replace(temporary, path)
    except Exception as error:  # each storage has exceptions of its own
        raise UsageError(f"The weights {url} cannot be read: {_reason(error)}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return str(path)


def placed_checkpoint(content: bytes, sha256: str) -> str:
    """The local path of a checkpoint that came from another node, called after its content."""
    folder = Path(os.path.expanduser(CUSTOM_CACHE))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{sha256}.pt"
    if not _is_right(path, sha256):
        temporary = folder / f".{uuid.uuid4().hex}.tmp"
        _write(iter([content]), temporary)
        os.replace(temporary, path)
    return str(path)


def _places(
    model_name: str, sha256: str, mirror: str | None, cache: Path | None
) -> tuple[Path, str]:
    """Where OpenAI's checkpoint is kept, and its address."""
    file_name = model_name.replace("/", "-").replace("@", "-") + ".pt"
    folder = cache or Path(os.path.expanduser(DEFAULT_CACHE))
    return folder / file_name, f"{(mirror or OFFICIAL_ADDRESS).rstrip('/')}/{sha256}/{file_name}"


def _unreachable(address: str, error: Exception) -> WeightsUnavailable:
    return WeightsUnavailable(
        f"{address} cannot be downloaded ({error}): check the network, or name a mirror or a local "
        f"folder with the same files in {MIRROR_VARIABLE}."
    )


def _is_right(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(str(path)) == sha256


def _download(address: str, sha256: str, path: Path) -> None:
    """Put the file in its place, or nothing. The caller holds the lock.

    Raises:
        WeightsUnavailable: it cannot be read, or it has another checksum.
        OSError: it cannot be written.
    """
    for left in path.parent.glob(f".{path.name}.*.tmp"):  # by processes that were killed
        left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    logger.info("Downloading %s to %s.", address, path)
    try:
        found = _fetch(address, temporary)
        if found != sha256:
            raise WeightsUnavailable(
                f"{address} gives another file than OpenAI published (SHA-256 {found}, expected "
                f"{sha256}): name a good copy in {MIRROR_VARIABLE}."
            )
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _fetch(address: str, path: Path) -> str:
    """Write what is at an address to a file, with some patience, and give its SHA-256."""
    pauses = iter(RETRY_PAUSES_S)
    while True:
        try:
            return _write(_chunks(address), path)
        except _Interrupted as error:
            pause = next(pauses, None)
            if pause is None:
                raise _unreachable(address, error) from error
        time.sleep(pause)


def _write(chunks: Iterator[bytes], path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _chunks(address: str) -> Generator[bytes]:
    """What is at an address; none of its errors is an OSError, which means the local file.

    Raises:
        _Interrupted: the network, or the server, failed for now.
        WeightsUnavailable: nothing can be read there.
    """
    is_http = address.lower().startswith(("http://", "https://"))
    try:
        yield from _http_chunks(address) if is_http else _fsspec_chunks(address)
    except _Interrupted:
        raise
    except Exception as error:  # storages have exceptions of their own
        if _may_pass(error):
            raise _Interrupted(_reason(error)) from error
        raise WeightsUnavailable(
            f"{address} cannot be read ({_reason(error)}): name a mirror or a local folder with "
            f"the files of {OFFICIAL_ADDRESS} in {MIRROR_VARIABLE}."
        ) from error


def _http_chunks(address: str) -> Iterator[bytes]:
    with urllib.request.urlopen(address, timeout=TIMEOUT_S) as response:
        promised = response.headers["Content-Length"]
        received = 0
        while chunk := response.read(CHUNK_BYTES):
            received += len(chunk)
            yield chunk
    if promised is not None and received < int(promised):  # http.client says nothing
        raise _Interrupted(f"it ended after {received} of {promised} bytes")


def _fsspec_chunks(address: str) -> Iterator[bytes]:
    with fsspec.open(address, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _may_pass(error: Exception) -> bool:
    """Whether another try may be luckier."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code >= 500
    lasting = (FileNotFoundError, NotADirectoryError, PermissionError, http.client.InvalidURL)
    return isinstance(error, (OSError, http.client.HTTPException)) and not isinstance(
        error, lasting
    )


def _reason(error: Exception) -> str:
    """Why, on one line; urllib wraps the error that matters in a plain URLError."""
    text = str(error.reason if type(error) is urllib.error.URLError else error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__
