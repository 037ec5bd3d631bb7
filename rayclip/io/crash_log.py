"""How a process died and what it was working on then: a log on local disk that outlives it.

The log is JSON, one record a line. What Python's fault handler writes at a crash goes to a file
beside it, so that nothing that a user can name, such as a video, shares a file with it.
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

MAX_BYTES = 2**16  # of records, after which those that no longer matter are dropped
MAX_DEATHS = 100  # that are remembered
LOADING = "loading"  # what a process works on while it loads its model
FAULT_SUFFIX = ".fault"
FAULT_HEADING = "Fatal Python error: "

Key = int | str
"""What a process works on: the position of a video in its group, or the name of a chunk."""


class Cause(StrEnum):
    """How a process died."""

    CRASH = "crash"  # a signal of its own, such as a segmentation fault
    HANG = "hang"
    MEMORY = "memory"
    DEVICE = "device"  # it cannot be used any more, or not even for loading the model
    KILL = "kill"  # from outside, or with its node


@dataclass(frozen=True)
class Death:
    """The end of a process.

    Attributes:
        cause: how it died.
        reason: a few words, for people.
        busy: what it was working on; None if that is not known.
        at_s: when that was noticed, as ``time.time`` counts.
    """

    cause: Cause
    reason: str
    busy: tuple[Key, ...] | None = ()
    at_s: float = 0.0


class CrashLog:
    """The log of this process. It costs microseconds a record: one write, never synced.

    If a file cannot be opened or written, nothing is remembered, and the work goes on.

    Attributes:
        deaths: of earlier processes with the same log, without what was cleared since.
    """

    def __init__(self, path: str) -> None:
        """Read what an earlier process left, and start to log.

        Args:
            path: of the log, in a folder that exists.
        """
        global _current
        self.deaths = tuple(_deaths(path))
        self._path = path
        self._lock = threading.Lock()
        self._busy: dict[Key, str] = {}
        self._begun: collections.Counter[Key] = collections.Counter()
        self._faults = _opened(path + FAULT_SUFFIX)
        self._file = _opened(path)
        self._rewrite()
        self._had_fault_handler = faulthandler.is_enabled()
        if self._faults is not None:
            faulthandler.enable(self._faults, all_threads=False)
        _current = self

    def close(self) -> None:
        """Stop logging and remove the files: this process did not die of what it worked on."""
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
        _remove(self._path)

    def begin(self, *keys: Key, name: str = "") -> None:
        """Record that work on these begins; whatever has begun twice must end twice.

        Args:
            keys: what is worked on.
            name: what people call it.
        """
        with self._lock:
            self._begun.update(keys)
            self._busy |= dict.fromkeys(keys, name)
            self._append(_begun(keys, name))

    def end(self, *keys: Key) -> None:
        """Record that work on these has ended, however it did."""
        with self._lock:
            self._begun.subtract(keys)
            ended = [key for key in keys if self._begun[key] <= 0]
            for key in ended:
                del self._begun[key]
                self._busy.pop(key, None)
            if ended:
                self._append({"event": "end", "keys": ended})

    @contextmanager
    def tracking(self, *keys: Key) -> Iterator[None]:
        """Around work on these."""
        self.begin(*keys)
        try:
            yield
        finally:
            self.end(*keys)

    def clear(self, key: Key) -> None:
        """Record that this was not the reason for the deaths that it was there for."""
        with self._lock:
            self.deaths = tuple(_without(key, self.deaths))
            self._append({"event": "clear", "key": key})

    def end_process(self, cause: Cause, reason: str, status: int = 1) -> NoReturn:
        """Record a death and die at once, without waiting for anything."""
        with self._lock:  # nobody writes after this
            self._append(_died(Death(cause, reason, tuple(self._busy), time.time())))
            os._exit(status)

    def _rewrite(self) -> None:
        """Write only what still matters: else the log of an encoder would grow without end."""
        self._size = 0
        if self._file is not None:
            with suppress(OSError):
                self._file.truncate(0)
        for death in self.deaths[-MAX_DEATHS:]:
            self._write(_died(death))
        self._write({"event": "start", "process": os.getpid()})
        for key, name in self._busy.items():
            self._write(_begun([key], name))
        self._limit = self._size + MAX_BYTES

    def _append(self, record: Mapping[str, Any]) -> None:
        self._write(record)
        if self._size > self._limit:
            self._rewrite()

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._file is None:
            return
        # The newline comes first: what follows a record that a full disk has torn stays whole.
        content = b"\n" + json.dumps({"at_s": time.time(), **record}).encode()
        self._size += len(content)
        with suppress(OSError):
            self._file.write(content)


_current: CrashLog | None = None  # Python's fault handler, too, knows one file


def end_process(cause: Cause, reason: str, status: int) -> NoReturn:
    """End this process at once, and record why if it has a log."""
    if _current is not None:
        _current.end_process(cause, reason, status)
    os._exit(status)


def take_death(path: str) -> Death:
    """How a process died that has left its log here, which is removed."""
    deaths = _deaths(path)
    _remove(path)
    return deaths[-1] if deaths else killed(None)


def killed(busy: tuple[Key, ...] | None) -> Death:
    """A death that was not recorded."""
    return Death(Cause.KILL, "it may need more memory than there is", busy, time.time())


def busy_in(path: str) -> dict[Key, str]:
    """What a living process works on, and what people call it, the oldest first."""
    return _replayed(path)[1] or {}


def _deaths(path: str) -> list[Death]:
    """All deaths that a log tells of, now that its process is dead."""
    deaths, working = _replayed(path)
    busy = None if working is None else tuple(working)
    fault = _read(path + FAULT_SUFFIX).partition("\n")[0]
    if fault.startswith(FAULT_HEADING):
        deaths.append(Death(Cause.CRASH, fault.removeprefix(FAULT_HEADING), busy, time.time()))
    elif busy is not None:
        deaths.append(killed(busy))
    return deaths


def _replayed(path: str) -> tuple[list[Death], dict[Key, str] | None]:
    """Recorded deaths, and what the last process worked on; None if it has recorded its death."""
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
        except (ValueError, TypeError, KeyError):  # torn, or damaged
            continue
    return deaths, busy


def _begun(keys: Iterable[Key], name: str) -> dict[str, Any]:
    return {"event": "begin", "keys": [*keys], "name": name}


def _died(death: Death) -> dict[str, Any]:
    return {
        "event": "death",
        "cause": death.cause,
        "reason": death.reason,
        "keys": death.busy or (),
        "at_s": death.at_s,
    }


def _without(key: Key, deaths: Iterable[Death]) -> list[Death]:
    return [
        replace(death, busy=tuple(one for one in death.busy or () if one != key))
        for death in deaths
    ]


def _opened(path: str) -> IO[bytes] | None:
    """An empty file for appending, never through a link: others may write in this folder, too."""
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


def _remove(path: str) -> None:
    for one in (path, path + FAULT_SUFFIX):
        with suppress(OSError):
            os.unlink(one)
