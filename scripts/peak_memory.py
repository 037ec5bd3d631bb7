"""The peak memory of each process of a command, including Ray's processes."""

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
HEADER = ("process", "count", "resident MB", "private MB")
UNNAMED = ("ray::IDLE", "python")  # titles of a worker before and after its work
EXPLANATION = """\
The maximum for each kind of process. resident: all resident memory, including pages of Ray's object
store and of libraries. private: without shared pages, sampled every 0.1 s."""


@dataclass
class Peak:
    """The peak memory of a process.

    Attributes:
        name: the kind of process.
        resident: peak resident bytes, as recorded by the kernel.
        own: peak private bytes, as sampled.
    """

    name: str
    resident: int = 0
    own: int = 0


class MemoryWatch:
    """Samples a process and its descendants on a thread, during a ``with`` block.

    Attributes:
        peaks: the peaks of every process.
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
                        self._sample(process)

    def _sample(self, process: psutil.Process) -> None:
        name = "the command" if process == self._root else _name(process)
        memory, peak_rss = process.memory_info(), _high_water_mark(process.pid)
        peak = self._peaks.setdefault(process, Peak(name))
        if not name.startswith(UNNAMED):
            peak.name = name
        peak.resident = max(peak.resident, peak_rss)
        peak.own = max(peak.own, memory.rss - memory.shared)


def _name(process: psutil.Process) -> str:
    """The title of a process, without arguments and folders."""
    words = process.cmdline() or [process.name()]
    first = words[0] if words[0].startswith("ray::") else process.name()
    return re.split("[(. ]", first)[0]


def _high_water_mark(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def report(peaks: Iterable[Peak]) -> str:
    """A table with a row for each kind of process, the largest first, and an explanation."""
    return f"{table(HEADER, list(_rows(list(peaks))))}\n\n{EXPLANATION}"


def _rows(peaks: list[Peak]) -> Iterator[list[str]]:
    kinds = {peak.name: [one for one in peaks if one.name == peak.name] for peak in peaks}
    for name, same_name in sorted(kinds.items(), key=lambda kind: -max(p.own for p in kind[1])):
        largest = (max(p.resident for p in same_name), max(p.own for p in same_name))
        yield [name, str(len(same_name)), *(number(size / 2**20, 0) for size in largest)]
