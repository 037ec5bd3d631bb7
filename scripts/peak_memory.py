"""The most memory that each process of a command ever has, Ray's processes included."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from tables import number, table

PERIOD_S = 0.1
HEADER = ("process", "how many", "resident MB", "its own MB")
UNNAMED = ("ray::IDLE", "python")  # what a worker is called before and after its work
EXPLANATION = """\
The largest of each kind. resident: as the system counts it, pages of Ray's object store and of
libraries among it. its own: without what is shared, looked at every 0.1 s."""


@dataclass
class Peak:
    """The most memory that a process had.

    Attributes:
        name: what it does.
        resident: bytes, as the system remembers them.
        own: bytes that it shares with nobody, at the moments when somebody looked.
    """

    name: str
    resident: int = 0
    own: int = 0


class MemoryWatch:
    """Looks, on a thread, at a process and at all below it; a ``with`` block, which it lasts for.

    Attributes:
        peaks: of every process that was seen.
    """

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._peaks: dict[psutil.Process, Peak] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory watch", daemon=True)

    @property
    def peaks(self) -> list[Peak]:
        return list(self._peaks.values())

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(PERIOD_S):
            with suppress(psutil.NoSuchProcess):
                for process in [self._root, *self._root.children(recursive=True)]:
                    with suppress(psutil.Error, OSError, StopIteration):
                        self._look(process)

    def _look(self, process: psutil.Process) -> None:
        name = "the command" if process == self._root else _name(process)
        memory, most = process.memory_info(), _high_water_mark(process.pid)
        peak = self._peaks.setdefault(process, Peak(name))
        if not name.startswith(UNNAMED):
            peak.name = name
        peak.resident = max(peak.resident, most)
        peak.own = max(peak.own, memory.rss - memory.shared)


def _name(process: psutil.Process) -> str:
    """What a process says that it does, without arguments and folders."""
    words = process.cmdline() or [process.name()]
    first = words[0] if words[0].startswith("ray::") else process.name()
    return re.split("[(. ]", first)[0]


def _high_water_mark(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def report(peaks: Iterable[Peak]) -> str:
    """A table with a row for each kind of process, the largest first, and what it means."""
    return f"{table(HEADER, list(_rows(list(peaks))))}\n\n{EXPLANATION}"


def _rows(peaks: list[Peak]) -> Iterator[list[str]]:
    kinds = {peak.name: [one for one in peaks if one.name == peak.name] for peak in peaks}
    for name, alike in sorted(kinds.items(), key=lambda kind: -max(p.own for p in kind[1])):
        largest = (max(p.resident for p in alike), max(p.own for p in alike))
        yield [name, str(len(alike)), *(number(size / 2**20, 0) for size in largest)]
