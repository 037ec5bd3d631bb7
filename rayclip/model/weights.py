"""Download and cache checkpoints; OpenAI's are downloaded once per node and verified."""

from __future__ import annotations

import hashlib
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
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
from rayclip.model.load_stage import report_bytes, stage

OFFICIAL_ADDRESS = "https://openaipublic.azureedge.net/clip/models"
MIRROR_VARIABLE = "RAYCLIP_WEIGHTS_MIRROR"
CUSTOM_CACHE = "~/.cache/rayclip"
DEFAULT_CACHE = "~/.cache/clip"  # the same as clip's, so its downloads are reused
TIMEOUT_S = 30.0
CHUNK_BYTES = 1 << 20

logger = logging.getLogger(__name__)


class _Unreadable(Exception):
    """A URL cannot be read; ``__cause__`` says whether a retry may help."""


def official_checkpoint(
    model_name: str, sha256: str, mirror: str | None = None, cache: Path | None = None
) -> str:
    """Return the local path of OpenAI's checkpoint; downloads it unless it is cached.

    A lock lets one process of a node download while the others wait for the file, which is written
    atomically.

    Args:
        model_name: one of ``clip.available_models()``.
        sha256: of the checkpoint, in hexadecimal; a cached file is verified, too.
        mirror: an http(s) or other fsspec URL, or a local folder, with the layout of
            :data:`OFFICIAL_ADDRESS`, which is the default.
        cache: the cache folder; None takes :data:`DEFAULT_CACHE`.

    Raises:
        WeightsUnavailable: it cannot be downloaded or saved, or its checksum is wrong.
    """
    path, address = _location(model_name, sha256, mirror, cache)
    try:
        if not _is_verified(path, sha256):  # before the lock: a cache may be read-only
            path.parent.mkdir(parents=True, exist_ok=True)
            with _lock(path):
                if not _is_verified(path, sha256):
                    _remove_stale_tmp(path.parent)
                    logger.info("Downloading %s to %s.", address, path)
                    download = partial(_write_atomically, path, partial(_download, address, sha256))
                    with stage(f"Downloading {path.name}"):
                        with_retry(download, is_transient, retry.RESTART)
    except (_Unreadable, RetriesExhausted) as error:
        raise _unavailable(address, None if mirror else model_name, error) from error
    except OSError as error:
        raise WeightsUnavailable(
            f"The weights from {address} cannot be saved as {path} ({reason(error)}): make sure "
            "that the folder is writable and has free space."
        ) from error
    return str(path)


def check_official_available(
    model_name: str, sha256: str, mirror: str | None = None, cache: Path | None = None
) -> None:
    """Check that :func:`official_checkpoint` has a cached file or can start a download.

    Raises:
        WeightsUnavailable: neither is the case.
    """
    path, address = _location(model_name, sha256, mirror, cache)
    if path.is_file():
        return
    with closing(_chunks(address)) as chunks:
        try:
            next(chunks, None)
        except _Unreadable as error:
            raise _unavailable(address, None if mirror else model_name, error) from error


def fetch_checkpoint(url: str, storage_options: Mapping[str, Any]) -> str:
    """Download a user's checkpoint; returns the local path, which is named by its content.

    Raises:
        UsageError: it cannot be read.
    """
    folder = _custom_cache()
    temporary = folder / temporary_name()
    try:
        with (
            stage(f"Downloading {url}"),
            open_remote(url, storage_options) as source,
            temporary.open("xb") as file,
        ):
            sha256 = _copy(_blocks(source, _size(source)), file)
        path = folder / f"{sha256}.pt"
        os.replace(temporary, path)
    except Exception as error:  # each storage has exceptions of its own
        raise UsageError(
            f"The weights {url} cannot be read ({reason(error)}): check the URL."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return str(path)


def store_checkpoint(content: bytes, sha256: str) -> str:
    """Save a checkpoint sent by another node; returns the local path, named by its content."""
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
    """Return the cache path and the URL of OpenAI's checkpoint."""
    file_name = model_name.replace("/", "-").replace("@", "-") + ".pt"
    folder = cache or Path(os.path.expanduser(DEFAULT_CACHE))
    return folder / file_name, f"{(mirror or OFFICIAL_ADDRESS).rstrip('/')}/{sha256}/{file_name}"


def name_on_the_hub(model_name: str) -> str:
    """Return open_clip's name of one of OpenAI's models: the same weights on another server."""
    arch = model_name.replace("/", "-").replace("@", "-").removesuffix("px")
    return f"open_clip:{arch}-quickgelu/openai"


def _unavailable(address: str, model_name: str | None, error: Exception) -> WeightsUnavailable:
    """Return the error for the user; with the model's name it names the same weights elsewhere."""
    advice = (
        f"check the network, or set {MIRROR_VARIABLE} to a mirror or a local folder with the same "
        "files"
    )
    if model_name is not None:
        advice += (
            f", or take the same weights from the Hugging Face Hub: {name_on_the_hub(model_name)} "
            "as model_name (pip install 'rayclip[open_clip]')"
        )
    return WeightsUnavailable(f"{address} cannot be read ({reason(error)}): {advice}.")


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with ExitStack() as waiting:
        waiting.enter_context(stage(f"Waiting for another process that downloads {path.name}"))
        with filelock.FileLock(path.with_name(f"{path.name}.lock")):
            waiting.close()
            yield


def _is_verified(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(str(path)) == sha256


def _remove_stale_tmp(folder: Path) -> None:
    """Remove temporary files of killed downloads."""
    for file in folder.glob(".*.tmp"):
        if is_stale_tmp(file.name, time.time() - file.stat().st_mtime):
            file.unlink(missing_ok=True)


def _write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    write_atomically(LocalFileSystem(), str(path), 0, write)


def _download(address: str, sha256: str, file: IO[bytes]) -> None:
    """Write OpenAI's checkpoint to a file.

    Raises:
        _Unreadable: it cannot be read.
        WeightsUnavailable: its checksum is wrong.
        OSError: it cannot be written.
    """
    found = _copy(_chunks(address), file)
    if found != sha256:
        raise WeightsUnavailable(
            f"{address} is not the file that OpenAI published (SHA-256 {found}, expected "
            f"{sha256}): set {MIRROR_VARIABLE} to a correct copy."
        )


def _copy(chunks: Iterator[bytes], file: IO[bytes]) -> str:
    """Write chunks to a file; returns their SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        file.write(chunk)
    return digest.hexdigest()


def _chunks(address: str) -> Generator[bytes]:
    """Read a URL in chunks.

    Raises:
        _Unreadable: for any error of the network, the server or the storage, so that an OSError
            always means the local file.
    """
    is_http = address.lower().startswith(("http://", "https://"))
    try:
        if is_http:
            yield from _http_chunks(address)
        else:
            with open_remote(address, {}) as file:
                yield from _blocks(file, _size(file))
    except Exception as error:  # each storage has exceptions of its own
        cause = error
        if type(error) is urllib.error.URLError and isinstance(error.reason, Exception):
            cause = error.reason  # shows whether it is transient
        raise _Unreadable(reason(cause)) from cause


def _http_chunks(address: str) -> Iterator[bytes]:
    """Read with urllib, which needs no extra package and uses the environment's proxies."""
    with urllib.request.urlopen(address, timeout=TIMEOUT_S) as response:
        yield from _blocks(response, response.length or 0)
        if response.length:  # http.client does not raise for a short body
            raise ConnectionError(f"it ended {response.length} bytes early")


def _blocks(file: IO[bytes], size: int) -> Iterator[bytes]:
    """Read a file to its end, and report the progress; its size is 0 if unknown."""
    done = 0
    while block := file.read(CHUNK_BYTES):
        done += len(block)
        report_bytes(done, size)
        yield block


def _size(file: IO[bytes]) -> int:
    """Return the size in bytes of a file that fsspec opened; 0 if it does not say."""
    return getattr(file, "size", None) or 0
