"""The crash log: what it records of a death, and that it leaves nothing otherwise."""

from __future__ import annotations

import errno
import faulthandler
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayclip.io import crash_log
from rayclip.io.crash_log import (
    MAX_BYTES,
    Cause,
    CrashLog,
    Death,
    read_busy,
    take_death,
    unrecorded_death,
)

PROCESS = """
import ctypes, os, signal, sys
from rayclip.io import crash_log
from rayclip.io.crash_log import Cause, CrashLog

log = CrashLog(sys.argv[1])
log.begin(1, name="one.mp4")
log.begin(2, name="two.mp4")
log.end(1)
exec(sys.argv[2])
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "log")


@pytest.fixture(autouse=True)
def fault_handler_as_before() -> Iterator[None]:
    """Restore pytest's fault handler, which writes to another file."""
    yield
    faulthandler.enable(sys.__stderr__)
    crash_log._current = None


def die(path: str, how: str) -> subprocess.CompletedProcess[bytes]:
    """Run a process that logs work on 2 and then executes ``how``."""
    return subprocess.run([sys.executable, "-c", PROCESS, path, how], capture_output=True)


def summary(death: Death) -> tuple[Cause, str, object]:
    return death.cause, death.reason, death.busy


def kill(path: str) -> None:
    die(path, "os.kill(os.getpid(), signal.SIGKILL)")


KILLED = unrecorded_death([2]).reason


@pytest.mark.parametrize(
    ("how", "cause", "reason"),
    [
        ("ctypes.string_at(0)", Cause.CRASH, "Segmentation fault"),
        ("os.abort()", Cause.CRASH, "Aborted"),
        ("log.end_process(Cause.DEVICE, 'no \\udcff')", Cause.DEVICE, "no \udcff"),
        ("crash_log.end_process(Cause.HANG, 'it hung', 75)", Cause.HANG, "it hung"),
        ("os.kill(os.getpid(), signal.SIGKILL)", Cause.KILL, KILLED),
        ("os._exit(0)", Cause.KILL, KILLED),
    ],
)
def test_how_a_process_died_can_be_read_once(
    how: str, cause: Cause, reason: str, path: str, tmp_path: Path
) -> None:
    before = time.time()
    die(path, how)
    death = take_death(path)
    assert summary(death) == (cause, reason, (2,))
    assert before <= death.at_s <= time.time()
    assert take_death(path).busy is None
    assert not [*tmp_path.iterdir()]


def test_a_process_ends_with_the_given_status(path: str) -> None:
    assert die(path, "log.end_process(Cause.HANG, 'x', 75)").returncode == 75


def test_end_process_works_without_a_log() -> None:
    code = "from rayclip.io.crash_log import *; end_process(Cause.HANG, 'x', 75)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 75


def test_closing_the_log_removes_its_files(path: str, tmp_path: Path) -> None:
    die(path, "log.close()")
    assert not [*tmp_path.iterdir()]


def test_the_work_of_a_running_process_can_be_read(path: str) -> None:
    log = CrashLog(path)
    log.begin(3, name="three.mp4")
    log.begin(4, name="four.mp4")
    log.end(3)
    assert read_busy(path) == {4: "four.mp4"}
    log.end(4)
    log.end(4)
    assert read_busy(path) == {}


def test_work_that_began_twice_must_end_twice(path: str) -> None:
    log = CrashLog(path)
    with log.tracking("a", "b"):
        with log.tracking("a"):
            assert [*read_busy(path)] == ["a", "b"]
        assert [*read_busy(path)] == ["a", "b"]
    assert read_busy(path) == {}


def test_work_that_raises_has_ended(path: str) -> None:
    with pytest.raises(ValueError, match="bad"), CrashLog(path).tracking("a"):
        raise ValueError("bad")
    assert read_busy(path) == {}


def test_work_of_several_threads_is_tracked_together(path: str) -> None:
    log, both = CrashLog(path), threading.Barrier(3, timeout=10)

    def work(name: str) -> None:
        with log.tracking(name):
            both.wait()
            both.wait()

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    both.wait()
    assert sorted(map(str, read_busy(path))) == ["a", "b"]
    both.wait()
    for thread in threads:
        thread.join(10)
    assert read_busy(path) == {}


def test_deaths_of_several_processes_accumulate(path: str) -> None:
    die(path, "log.end_process(Cause.DEVICE, 'first')")
    kill(path)
    die(path, "os.abort()")
    deaths = CrashLog(path).deaths
    assert [*map(summary, deaths)] == [
        (Cause.DEVICE, "first", (2,)),
        (Cause.KILL, KILLED, (2,)),
        (Cause.CRASH, "Aborted", (2,)),
    ]
    assert CrashLog(path).deaths[:3] == deaths


def test_a_cleared_key_is_removed_from_all_deaths(path: str) -> None:
    kill(path)
    log = CrashLog(path)
    log.clear(2)
    assert [death.busy for death in log.deaths] == [()]
    assert CrashLog(path).deaths[0].busy == ()


# ---- content of the files ----


@given(names=st.lists(st.text(st.characters(exclude_categories=())), max_size=5), data=st.data())
def test_names_and_reasons_are_read_back_unchanged(names: list[str], data: st.DataObject) -> None:
    reason = data.draw(st.text(st.characters(exclude_categories=())))
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/log"
        log = CrashLog(path)
        for position, name in enumerate(names):
            log.begin(position, name=name)
        assert read_busy(path) == dict(enumerate(names))
        log._append(crash_log._death_record(Death(Cause.HANG, reason, tuple(range(len(names))))))
        death = take_death(path)
    assert summary(death) == (Cause.HANG, reason, tuple(range(len(names))))


RECORD = '{"event": "end", "keys": [0]}'
HOSTILE = [
    '+99 "y"',
    "-0",
    "Fatal Python error: Bus error",
    RECORD,
    f'", "keys": []}}\n{RECORD}\n',
    '{"event": "death", "cause": "crash", "reason": "x", "keys": [1], "at_s": 0}',
]


@pytest.mark.parametrize("line", HOSTILE)
def test_a_name_that_looks_like_a_record_is_not_one(line: str, path: str) -> None:
    log = CrashLog(path)
    log.begin(0, name=f"x\n{line}\n.mp4")
    assert summary(take_death(path)) == (Cause.KILL, KILLED, (0,))


@given(torn=st.integers(1, 200))
def test_a_torn_record_is_ignored(torn: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        log = CrashLog(str(path))
        log.begin(0, name="a.mp4")
        before = path.stat().st_size
        log.begin(1, name="b.mp4")
        record = path.stat().st_size - before
        os.truncate(path, path.stat().st_size - min(torn, record))
        assert read_busy(str(path)) == {0: "a.mp4"}
        log.begin(2, name="c.mp4")
        assert read_busy(str(path)) == {0: "a.mp4", 2: "c.mp4"}


JSON = st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)


@given(content=st.binary() | JSON.map(str.encode))
def test_a_damaged_log_is_ignored(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        path.write_bytes(content)
        log = CrashLog(str(path))
        assert log.deaths == ()
        log.begin(0, name="a.mp4")
        assert read_busy(str(path)) == {0: "a.mp4"}


@pytest.mark.parametrize(
    "record",
    [
        {"event": "death", "cause": "old age", "reason": "x", "keys": [], "at_s": 0},
        {"event": "death"},
        {"event": "begin", "keys": [[1]], "name": "x"},
        {"event": "end", "keys": 7},
        {"event": "something new"},
        {"event": ["begin"]},
        [],
        None,
    ],
)
def test_an_invalid_record_is_ignored(record: object, path: str) -> None:
    CrashLog(path).begin(0, name="a.mp4")
    with open(path, "a") as file:
        file.write(f"\n{json.dumps(record)}")
    assert read_busy(path) == {0: "a.mp4"}


def test_compaction_bounds_the_log_and_keeps_deaths_and_current_work(path: str) -> None:
    kill(path)
    die(path, "log.end_process(Cause.DEVICE, 'x')")
    log = CrashLog(path)
    log.clear(2)
    log.begin(7, name="seven.mp4")
    for number in range(3000):
        with log.tracking(f"{number:016x}"):
            pass
        assert os.path.getsize(path) < 2 * MAX_BYTES
    assert read_busy(path) == {7: "seven.mp4"}
    assert [death.busy for death in CrashLog(path).deaths] == [(), (), (7,)]


# ---- failing writes ----


def test_work_continues_if_no_log_can_be_created(tmp_path: Path) -> None:
    log = CrashLog(str(tmp_path / "nowhere" / "log"))
    with log.tracking("a"):
        log.clear("b")
    log.close()
    assert log.deaths == ()


def test_a_log_never_follows_a_link(path: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    os.symlink(target, path)
    CrashLog(path).begin(1)
    assert target.read_text() == "mine"


def test_after_a_full_disk_later_records_are_readable(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CrashLog(path)
    assert log._file is not None
    file, is_full = log._file, True

    class Disk:
        """A disk that writes half of the content while it is full."""

        def write(self, content: bytes) -> int:
            if is_full:
                file.write(content[: len(content) // 2])
                raise OSError(errno.ENOSPC, "full")
            return file.write(content)

    monkeypatch.setattr(log, "_file", Disk())
    log.begin(1, name="one.mp4")
    is_full = False
    log.begin(2, name="two.mp4")
    assert read_busy(path) == {2: "two.mp4"}


def test_a_record_takes_less_than_100_microseconds(path: str) -> None:
    log = CrashLog(path)
    took = []
    for number in range(2000):
        started = time.perf_counter()
        with log.tracking(f"{number:016x}", f"{number + 1:016x}"):
            pass
        took.append(time.perf_counter() - started)
    assert sorted(took)[len(took) // 2] < 100e-6


# ---- Python's fault handler ----


def test_closing_restores_the_fault_handler(path: str) -> None:
    for was_enabled in (True, False):
        if not was_enabled:
            faulthandler.disable()
        log = CrashLog(path)
        assert faulthandler.is_enabled()
        log.close()
        assert faulthandler.is_enabled() == was_enabled


def test_the_fault_handler_writes_to_its_own_file(path: str) -> None:
    die(path, "ctypes.string_at(0)")
    assert "Segmentation fault" not in Path(path).read_text()
    assert Path(path + ".fault").read_text().startswith("Fatal Python error: Segmentation fault\n")
