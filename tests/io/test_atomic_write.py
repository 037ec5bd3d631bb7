"""Files that appear whole or not at all, here and on remote storages."""

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
    """A folder of its own for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How files went to the in-memory storage; large ones have 10 bytes."""
    used: list[str] = []
    storage = type(fsspec.filesystem("memory"))

    def noted(way: str) -> None:
        original = getattr(storage, way)

        def call(*arguments: Any, **options: Any) -> Any:
            used.append(way)
            return original(*arguments, **options)

        monkeypatch.setattr(storage, way, call)

    noted("pipe_file")
    noted("put_file")
    monkeypatch.setattr(atomic_write, "SPOOL_BYTES", len(CONTENT))
    return used


@pytest.fixture(params=["local", "memory-small", "memory-large"])
def target(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    memory_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Any, str]:
    """A file system and a folder on it: what holds must hold on every way there."""
    monkeypatch.setattr(atomic_write, "SPOOL_BYTES", 0 if request.param == "memory-large" else 100)
    url = str(tmp_path / "folder") if request.param == "local" else memory_url
    fs, root = fsspec.core.url_to_fs(url)
    fs.makedirs(root)
    return fs, root


def test_a_file_is_there_and_nothing_else(target: tuple[Any, str], temporary: Path) -> None:
    fs, root = target
    write_atomically(fs, f"{root}/file", len(CONTENT), write)
    assert fs.cat_file(f"{root}/file") == CONTENT
    assert [path.rpartition("/")[2] for path in fs.ls(root, detail=False)] == ["file"]
    assert os.listdir(temporary) == []


def test_a_file_takes_the_place_of_another(target: tuple[Any, str]) -> None:
    fs, root = target
    fs.pipe_file(f"{root}/file", b"another, which is longer")
    write_atomically(fs, f"{root}/file", len(CONTENT), write)
    assert fs.cat_file(f"{root}/file") == CONTENT


@pytest.mark.parametrize("before", [None, b"another"])
def test_a_write_that_fails_changes_nothing(
    target: tuple[Any, str], temporary: Path, before: bytes | None
) -> None:
    fs, root = target
    if before is not None:
        fs.pipe_file(f"{root}/file", before)
    with pytest.raises(OSError, match="the disk is full"):
        write_atomically(fs, f"{root}/file", len(CONTENT), write_half)
    there = {path.rpartition("/")[2]: fs.cat_file(path) for path in fs.ls(root, detail=False)}
    assert there == ({} if before is None else {"file": before})
    assert os.listdir(temporary) == []


def test_a_small_file_goes_to_a_remote_storage_in_one_piece(
    memory_url: str, ways: list[str]
) -> None:
    fs, root = fsspec.core.url_to_fs(memory_url)
    write_atomically(fs, f"{root}/file", len(CONTENT) - 1, write)
    assert ways == ["pipe_file"]


def test_a_large_file_goes_to_a_remote_storage_from_a_disk(
    memory_url: str, ways: list[str]
) -> None:
    fs, root = fsspec.core.url_to_fs(memory_url)
    write_atomically(fs, f"{root}/file", len(CONTENT), write)
    assert ways == ["put_file"]


def test_an_upload_that_fails_leaves_no_temporary_file(
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


def test_the_temporary_file_is_in_the_folder_of_the_file(tmp_path: Path) -> None:
    fs = fsspec.filesystem("file")
    seen: list[str] = []

    def look(file: IO[bytes]) -> None:
        seen.append(os.path.dirname(file.name))

    write_atomically(fs, str(tmp_path / "file"), 0, look)
    assert seen == [str(tmp_path)]


# ---- what dead processes leave ----


def temporary_name(host: str | None = None, process: int | str | None = None) -> str:
    host = socket.gethostname() if host is None else host
    return f".{host}.{os.getpid() if process is None else process}.{'0f' * 16}.tmp"


def a_dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


@pytest.mark.parametrize("age_s", [0.0, STALE_AFTER_S + 1])
@pytest.mark.parametrize(
    ("name", "left_over"),
    [
        (temporary_name(), "when old"),
        (temporary_name(process=1), "when old"),
        (temporary_name(process=a_dead_process()), "always"),
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
        "mine",
        "another user's",
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
def test_a_temporary_file_is_left_over(name: str, left_over: str, age_s: float) -> None:
    expected = left_over == "always" or (left_over == "when old" and age_s > STALE_AFTER_S)
    assert is_stale_tmp(name, age_s) == expected


def test_a_temporary_file_is_known_as_such(tmp_path: Path) -> None:
    fs = fsspec.filesystem("file")
    seen: list[str] = []
    write_atomically(fs, str(tmp_path / "file"), 0, lambda file: seen.append(file.name))
    (name,) = (os.path.basename(path) for path in seen)
    assert not is_stale_tmp(name, 0.0)
    assert is_stale_tmp(name, STALE_AFTER_S + 1)


def test_a_temporary_file_that_somebody_takes_away_may_be_written_again(tmp_path: Path) -> None:
    fs = fsspec.filesystem("file")
    with pytest.raises(OSError, match="removed") as caught:
        write_atomically(fs, str(tmp_path / "file"), 0, lambda file: os.unlink(file.name))
    assert is_transient(caught.value)


def test_a_full_disk_under_an_upload_is_told_from_a_full_storage(
    memory_url: str, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(file: IO[bytes]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic_write, "SPOOL_BYTES", 0)
    fs, root = fsspec.core.url_to_fs(memory_url)
    with pytest.raises(OSError, match=f"No space left on device: '{temporary}"):
        write_atomically(fs, f"{root}/file", len(CONTENT), fill)
