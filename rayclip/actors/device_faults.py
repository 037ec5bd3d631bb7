"""Faults of a device: which exception means which, and what an encoder that one of them ends leaves
for its next life, so that only the frames at fault are given up."""

from __future__ import annotations

import collections
import faulthandler
import json
import os
import re
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import NoReturn

DEATHS_OF_GUILTY_FRAMES = 2
UNEXPLAINED_DEATHS = 3
UNEXPLAINED_WITHIN_S = 600.0
REMEMBERED_DEATHS = 100
LOADING = "loading"  # in place of the names of chunks

_DEVICE_ERROR = re.compile(
    r"CUDA (driver )?error|cuDNN error|(CUDNN|CUBLAS)_STATUS_|Triton Error \[CUDA\]"
)
_NO_MEMORY = re.compile(r"out of memory|_STATUS_ALLOC_FAILED")
_CRASH = re.compile("^Fatal Python error: (.*)$", re.MULTILINE)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device has no memory left for what was asked; later calls may work."""
    if "OutOfMemoryError" in _type_names(error):
        return True
    return _is_of_device(error) and _NO_MEMORY.search(str(error)) is not None


def is_poisoned(error: BaseException) -> bool:
    """Whether a device will fail every later call of this process, as CUDA does after an error."""
    return _is_of_device(error) and not is_out_of_memory(error)


def first_line(error: BaseException) -> str:
    """What an exception says, without the advice that torch adds in further lines."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def empty_cache() -> None:
    """Give memory that torch keeps for later back to the device."""
    import torch

    torch.cuda.empty_cache()


@dataclass(frozen=True)
class Death:
    """The end of a process of an encoder.

    Attributes:
        at_s: when, as ``time.time`` counts.
        reason: a sentence.
        chunks: names of the chunks that were in forward passes then, without those that came
            through later.
    """

    at_s: float
    reason: str
    chunks: tuple[str, ...]


def deaths_with(chunk: str, deaths: Sequence[Death]) -> list[Death]:
    """Those that a chunk was there for. After the first it is a suspect and goes through passes of
    its own, so that no second can be another's fault."""
    return [death for death in deaths if chunk in death.chunks]


def is_given_up(deaths: Sequence[Death], now_s: float) -> bool:
    """Whether an encoder died too often of late and no frames were there that may be the reason."""
    unexplained = [
        death for death in deaths if not death.chunks and now_s - death.at_s < UNEXPLAINED_WITHIN_S
    ]
    return len(unexplained) >= UNEXPLAINED_DEATHS


class GuiltyFrames(Exception):
    """Frames that ended too many processes to be tried again."""


class BlackBox:
    """A small file that outlives the processes of an encoder: what is in its forward passes, and
    which of its processes died of what.

    A death counts when the process ends itself because of its device, or when it crashes (a
    segmentation fault, an abort). A kill from outside (SIGKILL, the memory killer) does not: it
    says nothing about the frames that happened to be there. But it does while the model is loaded:
    there may never be memory for it.

    The file has a line of deaths and a line of the names of chunks; the second is written at both
    ends of each pass (some 10 microseconds). What Python's fault handler says comes last.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, and learn from what is in it.

        Raises:
            OSError: it cannot be opened.
        """
        self.deaths = _deaths_in(path)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        self._lock = threading.Lock()
        self._in_passes: collections.Counter[str] = collections.Counter()
        self._write_all()
        self._crashes = path.open("a")  # appends to whatever stands there when it happens
        faulthandler.enable(self._crashes, all_threads=False)

    def deaths_of(self, chunk: str) -> list[Death]:
        """Those before this process that a chunk was there for."""
        return deaths_with(chunk, self.deaths)

    @contextmanager
    def noting(self, chunks: Collection[str]) -> Iterator[None]:
        """Around a forward pass of frames of these chunks."""
        with self._lock:
            self._in_passes.update(chunks)
            self._write_passes()
        try:
            yield
        finally:
            with self._lock:
                self._in_passes.subtract(chunks)
                self._in_passes += collections.Counter()  # without those that are through
                self._write_passes()

    @contextmanager
    def loading(self) -> Iterator[None]:
        """While the model is loaded, before any pass."""
        with self._lock:
            self._write(_line(LOADING), self._passes_at)
        try:
            yield
        finally:
            with self._lock:
                self._write_passes()

    def acquit(self, chunk: str) -> None:
        """Note that a suspect was not the reason."""
        with self._lock:
            self.deaths = tuple(
                replace(death, chunks=tuple(name for name in death.chunks if name != chunk))
                for death in self.deaths
            )
            self._write_all()

    def end_process(self, reason: str) -> NoReturn:
        """Note a death and die at once: with a poisoned device, nothing else would end."""
        with self._lock:  # no other thread writes after this
            death = Death(time.time(), reason, tuple(self._in_passes))
            self.deaths = (*self.deaths, death)
            self._in_passes.clear()
            self._write_all()
            os._exit(1)

    def _write_all(self) -> None:
        deaths = _line([astuple(death) for death in self.deaths[-REMEMBERED_DEATHS:]])
        self._passes_at = len(deaths)
        self._write(deaths + _line(list(self._in_passes)), 0)

    def _write_passes(self) -> None:
        self._write(_line(list(self._in_passes)), self._passes_at)

    def _write(self, content: bytes, at: int) -> None:
        with suppress(OSError):  # a full disk: better no memory of deaths than no features
            os.pwrite(self._file, content, at)
            os.ftruncate(self._file, at + len(content))


def _deaths_in(path: Path) -> tuple[Death, ...]:
    """All deaths that the file of a black box tells of; none where it is not there or damaged."""
    try:
        deaths, passes, rest = path.read_text(errors="replace").split("\n", 2)
        known = [Death(at_s, reason, tuple(names)) for at_s, reason, names in json.loads(deaths)]
        crash, noted = _CRASH.search(rest), json.loads(passes)
        if noted == LOADING:
            reason = crash[1] if crash else "killed while it loaded its model"
            known.append(Death(time.time(), reason, ()))
        elif crash:
            known.append(Death(path.stat().st_mtime, crash[1], tuple(noted)))
    except (OSError, ValueError):
        return ()
    return tuple(known)


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _is_of_device(error: BaseException) -> bool:
    if not isinstance(error, RuntimeError):
        return False
    return "AcceleratorError" in _type_names(error) or bool(_DEVICE_ERROR.search(str(error)))


def _type_names(error: BaseException) -> set[str]:
    """By name, because decoding processes import this module and must not import torch."""
    return {kind.__name__ for kind in type(error).__mro__}
