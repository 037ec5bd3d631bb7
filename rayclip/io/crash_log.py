"""A log on local disk that records how a process died and what it was working on.

The log is JSON lines. Python's fault handler writes to a separate file, so that text chosen by
users, such as a video's name, never shares a file with it.
"""

from __future__ import annotations

import collections
import faulthandler
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import IO, Any, NoReturn

MAX_BYTES = 2**16  # of new records before the log is compacted
MAX_DEATHS = 100  # kept by compaction
LOADING = "loading"  # the key of a process that is loading its model
FAULT_SUFFIX = ".fault"
FAULT_HEADING = "Fatal Python error: "

Key = int | str
"""A piece of work: the position of a video in its task, or the name of a chunk."""


class Cause(StrEnum):
    """How a process died."""

    CRASH = "crash"  # a fault such as SIGSEGV
    HANG = "hang"
    MEMORY = "memory"
    DEVICE = "device"  # the device became unusable, or the model could not be loaded on it
    KILL = "kill"  # from outside, or the node was lost


@dataclass(frozen=True)
class Death:
    """The end of a process.

    Attributes:
        cause: how it died.
        reason: a few words for the user.
        busy: what it was working on; None if unknown.
        at_s: when the death was recorded or noticed, in seconds since 1970.
    """

    cause: Cause
    reason: str
    busy: tuple[Key, ...] | None = ()
    at_s: float = 0.0


class CrashLog:
    """The log of this process. A record costs microseconds: one write, never synced.

    If a file cannot be opened or written, nothing is recorded and the work continues.

    Attributes:
        deaths: of earlier processes with the same log, without keys that were cleared since.
    """

    def __init__(self, path: str) -> None:
        """Read the log of earlier processes and start logging.

        Args:
            path: of the log, in an existing folder.
        """
        global _current
        self.deaths = tuple(_read_deaths(path))
        self._path = path
        self._lock = threading.Lock()
        self._busy: dict[Key, str] = {}
        self._open_begins: collections.Counter[Key] = collections.Counter()
        self._faults = _open_log(path + FAULT_SUFFIX)
        self._file = _open_log(path)
        self._rewrite()
        self._had_fault_handler = faulthandler.is_enabled()
        if self._faults is not None:
            faulthandler.enable(self._faults, all_threads=False)
        _current = self

    def close(self) -> None:
        """Stop logging and remove the files: this process ends normally."""
        global _current
        _current = None
        if self._had_fault_handler:
            faulthandler.enable(all_threads=False)
        else:
            faulthandler.disable()
        for file in (self._file, self._faults):
            if file is not None:
                file.close()
        self._file = self._faults = None
        _remove_log(self._path)

    def begin(self, *keys: Key, name: str = "") -> None:
        """Record the beginning of work; each call needs its own ``end``.

        Args:
            keys: what is worked on.
            name: for the user.
        """
        with self._lock:
            self._open_begins.update(keys)
            self._busy |= dict.fromkeys(keys, name)
            self._append(_begin_record(keys, name))

    def end(self, *keys: Key) -> None:
        """Record the end of work, whether it succeeded or failed."""
        with self._lock:
            self._open_begins.subtract(keys)
            ended = [key for key in keys if self._open_begins[key] <= 0]
            for key in ended:
                del self._open_begins[key]
                self._busy.pop(key, None)
            if ended:
                self._append({"event": "end", "keys": ended})

    @contextmanager
    def tracking(self, *keys: Key) -> Iterator[None]:
        """Record the beginning and the end of work in a ``with`` block."""
        self.begin(*keys)
        try:
            yield
        finally:
            self.end(*keys)

    def clear(self, key: Key) -> None:
        """Record that this key did not cause any of the recorded deaths."""
        with self._lock:
            self.deaths = tuple(_without(key, self.deaths))
            self._append({"event": "clear", "key": key})

    def end_process(self, cause: Cause, reason: str, status: int = 1) -> NoReturn:
        """Record a death and exit immediately, without any cleanup."""
        with self._lock:  # no other thread writes after this
            self._append(_death_record(Death(cause, reason, tuple(self._busy), time.time())))
            os._exit(status)

    def _rewrite(self) -> None:
        """Compact the log: an encoder's would otherwise grow without limit."""
        self._size = 0
        if self._file is not None:
            with suppress(OSError):
                self._file.truncate(0)
        for death in self.deaths[-MAX_DEATHS:]:
            self._write(_death_record(death))
        self._write({"event": "start", "process": os.getpid()})
        for key, name in self._busy.items():
            self._write(_begin_record([key], name))
        self._limit = self._size + MAX_BYTES

    def _append(self, record: Mapping[str, Any]) -> None:
        self._write(record)
        if self._size > self._limit:
            self._rewrite()

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._file is None:
            return
        # The newline comes first, so that a torn record (disk full) does not damage the next one.
        content = b"\n" + json.dumps({"at_s": time.time(), **record}).encode()
        self._size += len(content)
        with suppress(OSError):
            self._file.write(content)


_current: CrashLog | None = None  # one per process, like the file of Python's fault handler


def end_process(cause: Cause, reason: str, status: int) -> NoReturn:
    """Exit immediately, and record why if this process has a log."""
    if _current is not None:
        _current.end_process(cause, reason, status)
    os._exit(status)


def take_death(path: str) -> Death:
    """Read how the last process with this log died, and remove the log."""
    deaths = _read_deaths(path)
    _remove_log(path)
    return deaths[-1] if deaths else unrecorded_death(None)


def unrecorded_death(busy: Iterable[Key] | None) -> Death:
    """A death that left no record: the process was killed."""
    keys = None if busy is None else tuple(busy)
    return Death(Cause.KILL, "it may need more memory than there is", keys, time.time())


def read_busy(path: str) -> dict[Key, str]:
    """What a running process is working on, with names for the user, oldest first."""
    return _replay(path)[1] or {}


def _read_deaths(path: str) -> list[Death]:
    """All deaths in a log whose process is dead."""
    deaths, busy = _replay(path)
    fault = _read(path + FAULT_SUFFIX).partition("\n")[0]
    if fault.startswith(FAULT_HEADING):
        keys = None if busy is None else tuple(busy)
        deaths.append(Death(Cause.CRASH, fault.removeprefix(FAULT_HEADING), keys, time.time()))
    elif busy is not None:
        deaths.append(unrecorded_death(busy))
    return deaths


def _replay(path: str) -> tuple[list[Death], dict[Key, str] | None]:
    """Recorded deaths, and what the last process was working on (None if it recorded its death)."""
    deaths: list[Death] = []
    busy: dict[Key, str] | None = None
    for line in _read(path).split("\n"):
        try:
            record = json.loads(line)
            match record["event"]:
                case "start":
                    busy = {}
                case "begin" if busy is not None:
                    busy |= dict.fromkeys(record["keys"], record["name"])
                case "end" if busy is not None:
                    for key in record["keys"]:
                        busy.pop(key, None)
                case "clear":
                    deaths = _without(record["key"], deaths)
                case "death":
                    keys = tuple(record["keys"])
                    cause = Cause(record["cause"])
                    deaths.append(Death(cause, record["reason"], keys, record["at_s"]))
                    busy = None
        except (ValueError, TypeError, KeyError):  # torn or damaged
            continue
    return deaths, busy


def _begin_record(keys: Iterable[Key], name: str) -> dict[str, Any]:
    return {"event": "begin", "keys": [*keys], "name": name}


def _death_record(death: Death) -> dict[str, Any]:
    return {
        "event": "death",
        "cause": death.cause,
        "reason": death.reason,
        "keys": death.busy or (),
        "at_s": death.at_s,
    }


def _without(key: Key, deaths: Iterable[Death]) -> list[Death]:
    return [
        replace(death, busy=tuple(other for other in death.busy or () if other != key))
        for death in deaths
    ]


def _open_log(path: str) -> IO[bytes] | None:
    """An empty file for appending; never follows a link, since others can write to this folder."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return open(os.open(path, flags, 0o600), "wb", buffering=0)
    except OSError:
        return None


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _remove_log(path: str) -> None:
    for file in (path, path + FAULT_SUFFIX):
        with suppress(OSError):
            os.unlink(file)
