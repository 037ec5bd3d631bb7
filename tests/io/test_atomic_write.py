"""Atomic writes on local disks and on remote storage."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import fsspec
import pytest

from rayclip.io import atomic_write
from rayclip.io.atomic_write import STALE_AFTER_S, is_stale_tmp, write_atomically
from rayclip.io.storage_errors import is_transient

CONTENT = b"0123456789"


def write(file: IO[bytes]) -> None:
    file.write(CONTENT[:4])
    file.write(CONTENT[4:])


def write_half(file: IO[bytes]) -> None:
    file.write(CONTENT[:4])
    raise OSError("the disk is full")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A separate folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def upload_methods(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods that uploaded files to the in-memory storage; 10 bytes count as large."""
    used: list[str] = []
    storage = type(fsspec.filesystem("memory"))

    def record(method: str) -> None:
        original = getattr(storage, method)

        def call(*arguments: Any, **options: Any) -> Any:
            used.append(method)
            return original(*arguments, **options)

        monkeypatch.setattr(storage, method, call)

    record("pipe_file")
    record("put_file")
    monkeypatch.setattr(atomic_write, "SPOOL_BYTES", len(CONTENT))
    return used


@pytest.fixture(params=["local", "memory-small", "memory-large"])
def target(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    memory_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Any, str]:
    """A file system and a folder on it, for each method of writing."""
    monkeypatch.setattr(atomic_write, "SPOOL_BYTES", 0 if request.param == "memory-large" else 100)
    url = str(tmp_path / "folder") if request.param == "local" else memory_url
    fs, root = fsspec.core.url_to_fs(url)
    fs.makedirs(root)
    return fs, root


def test_a_write_creates_the_file_and_nothing_else(
    target: tuple[Any, str], temporary: Path
) -> None:
    fs, root = target
    write_atomically(fs, f"{root}/file", len(CONTENT), write)
    assert fs.cat_file(f"{root}/file") == CONTENT
    assert [path.rpartition("/")[2] for path in fs.ls(root, detail=False)] == ["file"]
    assert os.listdir(temporary) == []


def test_a_write_replaces_an_existing_file(target: tuple[Any, str]) -> None:
    fs, root = target
    fs.pipe_file(f"{root}/file", b"another, which is longer")
    write_atomically(fs, f"{root}/file", len(CONTENT), write)
    assert fs.cat_file(f"{root}/file") == CONTENT


@pytest.mark.parametrize("before", [None, b"another"])
def test_a_failed_write_changes_nothing(
    target: tuple[Any, str], temporary: Path, before: bytes | None
) -> None:
    fs, root = target
    if before is not None:
        fs.pipe_file(f"{root}/file", before)
    with pytest.raises(OSError, match="the disk is full"):
        write_atomically(fs, f"{root}/file", len(CONTENT), write_half)
    files = {path.rpartition("/")[2]: fs.cat_file(path) for path in fs.ls(root, detail=False)}
    assert files == ({} if before is None else {"file": before})
    assert os.listdir(temporary) == []


def test_a_small_file_is_uploaded_from_memory(memory_url: str, upload_methods: list[str]) -> None:
    fs, root = fsspec.core.url_to_fs(memory_url)
    write_atomically(fs, f"{root}/file", len(CONTENT) - 1, write)
    assert upload_methods == ["pipe_file"]


def test_a_large_file_is_uploaded_from_a_local_disk(
    memory_url: str, upload_methods: list[str]
) -> None:
    fs, root = fsspec.core.url_to_fs(memory_url)
    write_atomically(fs, f"{root}/file", len(CONTENT), write)
    assert upload_methods == ["put_file"]


def test_a_failed_upload_leaves_no_temporary_file(
    memory_url: str, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic_write, "SPOOL_BYTES", 0)
    fs, root = fsspec.core.url_to_fs(memory_url)

    def fail(local: str, remote: str) -> None:
        assert Path(local).read_bytes() == CONTENT
        raise OSError("the network is gone")

    monkeypatch.setattr(type(fs), "put_file", staticmethod(fail))
    with pytest.raises(OSError, match="the network is gone"):
        write_atomically(fs, f"{root}/file", len(CONTENT), write)
    assert not fs.exists(f"{root}/file")
    assert os.listdir(temporary) == []


def test_the_temporary_file_is_in_the_same_folder(tmp_path: Path) -> None:
    fs = fsspec.filesystem("file")
    paths: list[str] = []

    def look(file: IO[bytes]) -> None:
        paths.append(os.path.dirname(file.name))

    write_atomically(fs, str(tmp_path / "file"), 0, look)
    assert paths == [str(tmp_path)]


# ---- stale temporary files ----


def temporary_name(host: str | None = None, process: int | str | None = None) -> str:
    host = socket.gethostname() if host is None else host
    return f".{host}.{os.getpid() if process is None else process}.{'0f' * 16}.tmp"


def dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


@pytest.mark.parametrize("age_s", [0.0, STALE_AFTER_S + 1])
@pytest.mark.parametrize(
    ("name", "stale"),
    [
        (temporary_name(), "when old"),
        (temporary_name(process=1), "when old"),
        (temporary_name(process=dead_process()), "always"),
        (temporary_name(process="9" * 30), "always"),
        (temporary_name(host="another.machine"), "when old"),
        (temporary_name(host=""), "never"),
        (temporary_name().removeprefix("."), "never"),
        (temporary_name() + "x", "never"),
        (".tmp", "never"),
        ("cat_clip.npy", "never"),
        (".mine.1.tmp", "never"),
    ],
    ids=[
        "ours",
        "of another user",
        "a dead process's",
        "no process's",
        "another machine's",
        "no machine's",
        "not hidden",
        "longer",
        "short",
        "features",
        "of somebody else",
    ],
)
def test_stale_temporary_files_are_recognised(name: str, stale: str, age_s: float) -> None:
    expected = stale == "always" or (stale == "when old" and age_s > STALE_AFTER_S)
    assert is_stale_tmp(name, age_s) == expected


def test_our_own_temporary_names_are_recognised(tmp_path: Path) -> None:
    fs = fsspec.filesystem("file")
    paths: list[str] = []
    write_atomically(fs, str(tmp_path / "file"), 0, lambda file: paths.append(file.name))
    (name,) = (os.path.basename(path) for path in paths)
    assert not is_stale_tmp(name, 0.0)
    assert is_stale_tmp(name, STALE_AFTER_S + 1)


def test_a_removed_temporary_file_is_a_transient_error(tmp_path: Path) -> None:
    fs = fsspec.filesystem("file")
    with pytest.raises(OSError, match="removed") as caught:
        write_atomically(fs, str(tmp_path / "file"), 0, lambda file: os.unlink(file.name))
    assert is_transient(caught.value)


def test_a_full_local_disk_is_distinguished_from_full_storage(
    memory_url: str, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(file: IO[bytes]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic_write, "SPOOL_BYTES", 0)
    fs, root = fsspec.core.url_to_fs(memory_url)
    with pytest.raises(OSError, match=f"No space left on device: '{temporary}"):
        write_atomically(fs, f"{root}/file", len(CONTENT), fill)
