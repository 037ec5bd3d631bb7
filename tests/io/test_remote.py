"""Files on remote storage: which ranges are requested, how often, and when that ends."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from typing import Any

import fsspec
import pytest
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from rayclip.io import retry
from rayclip.io.remote import BLOCK_BYTES, file_system, open_remote
from rayclip.io.retry import RetriesExhausted, RetryPolicy

CONTENT = bytes(range(256)) * (3 * BLOCK_BYTES // 256) + b"the end"

Fetch = Callable[[int, int], bytes]


class Storage(AbstractFileSystem):
    """A storage with one file, whose content comes from a function of the test.

    Attributes:
        fetch: returns a range of the file.
    """

    protocol = "test-storage"
    cachable = False
    fetch: Fetch

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        return {"name": path, "size": len(CONTENT), "type": "file"}

    def _open(self, path: str, mode: str = "rb", **options: Any) -> AbstractBufferedFile:
        file = AbstractBufferedFile(self, path, mode, size=len(CONTENT))
        file._fetch_range = Storage.fetch
        return file


def whole(start: int, end: int) -> bytes:
    return CONTENT[start:end]


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> type[Storage]:
    fsspec.register_implementation(Storage.protocol, Storage, clobber=True)
    monkeypatch.setattr(Storage, "fetch", staticmethod(whole), raising=False)
    monkeypatch.setattr(retry, "STORAGE", RetryPolicy(5, 60, first_pause_s=0.001))
    return Storage


def content() -> bytes:
    with open_remote("test-storage://a", {}) as file:
        return b"".join(iter(lambda: file.read(100_000), b""))


def failing(times: int, how: Callable[[int, int], bytes]) -> tuple[Fetch, list[int]]:
    """A fetch that fails this many times for each range, and the starts of the requested ranges."""
    requested: list[int] = []

    def fetch(start: int, end: int) -> bytes:
        requested.append(start)
        return how(start, end) if requested.count(start) <= times else whole(start, end)

    return fetch, requested


def broken(start: int, end: int) -> bytes:
    raise ConnectionResetError("gone")


def short(start: int, end: int) -> bytes:
    return whole(start, end)[:-1]


def empty(start: int, end: int) -> bytes:
    return b""


@pytest.mark.parametrize("how", [broken, short, empty])
def test_each_range_is_requested_until_it_succeeds_and_not_again(
    storage: type[Storage], monkeypatch: pytest.MonkeyPatch, how: Fetch
) -> None:
    fetch, requested = failing(3, how)
    monkeypatch.setattr(storage, "fetch", staticmethod(fetch))
    assert content() == CONTENT
    assert [requested.count(block * BLOCK_BYTES) for block in range(4)] == [4, 4, 4, 4]


@pytest.mark.parametrize("how", [broken, short])
def test_a_range_that_keeps_failing_is_given_up(
    storage: type[Storage], monkeypatch: pytest.MonkeyPatch, how: Fetch
) -> None:
    monkeypatch.setattr(storage, "fetch", staticmethod(how))
    with pytest.raises(RetriesExhausted, match="tried 5 times"):
        content()


def test_permanent_errors_are_not_retried(
    storage: type[Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    requested: list[int] = []

    def denied(start: int, end: int) -> bytes:
        requested.append(start)
        raise PermissionError(errno.EACCES, "not yours")

    monkeypatch.setattr(storage, "fetch", staticmethod(denied))
    with pytest.raises(PermissionError):
        content()
    assert len(requested) == 1


def test_closing_stops_the_retries_of_a_prefetch(
    storage: type[Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = threading.Event()

    def ahead(start: int, end: int) -> bytes:
        if start > BLOCK_BYTES:  # the first read needs two blocks; the third is prefetched
            failed.set()
            raise ConnectionResetError("gone")
        return whole(start, end)

    monkeypatch.setattr(storage, "fetch", staticmethod(ahead))
    monkeypatch.setattr(retry, "STORAGE", RetryPolicy(2, 1000, first_pause_s=60, max_pause_s=60))
    started = time.monotonic()
    with open_remote("test-storage://a", {}) as file:
        file.read(BLOCK_BYTES)
        assert failed.wait(20)
    assert time.monotonic() - started < 20


def test_progress_is_reported_before_each_retry(
    storage: type[Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch, _ = failing(2, broken)
    monkeypatch.setattr(storage, "fetch", staticmethod(fetch))
    calls: list[None] = []
    with open_remote("test-storage://a", {}, lambda: calls.append(None)) as file:
        file.read(10)
    assert len(calls) >= 2


@pytest.mark.parametrize("given", [{}, {"connect_timeout": 1}])
def test_retries_of_botocore_are_turned_off(given: dict[str, int]) -> None:
    pytest.importorskip("s3fs")
    fs, path = file_system("s3://bucket/a.mp4", {"config_kwargs": given, "anon": True})
    assert path == "bucket/a.mp4"
    assert fs.config_kwargs == {"retries": {"total_max_attempts": 1}, **given}


def test_retries_of_botocore_can_be_configured() -> None:
    pytest.importorskip("s3fs")
    configured = {"retries": {"mode": "adaptive", "max_attempts": 9}}
    fs, _ = file_system("s3://bucket/a.mp4", {"config_kwargs": configured, "anon": True})
    assert fs.config_kwargs == configured


def test_the_callers_options_are_not_modified() -> None:
    options: dict[str, Any] = {"client_kwargs": {"trust_env": True}}
    pytest.importorskip("aiohttp")
    fs, _ = file_system("http://127.0.0.1/a.mp4", options)
    assert fs.client_kwargs["trust_env"]
    assert options == {"client_kwargs": {"trust_env": True}}
