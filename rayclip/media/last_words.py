"""What a process says as it dies, kept in a file for whoever wants to know why."""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

_kept: IO[bytes] | None = None


@contextmanager
def kept(path: str) -> Iterator[None]:
    """Have the last words of this process in a file, should it die inside the block.

    They are what :func:`say` and :func:`note` were given, and what Python's fault handler writes at
    a crash. The file is there from the beginning, and gone after the block; where it cannot be
    made, nothing is kept.
    """
    global _kept
    file = None
    with suppress(OSError):
        file = open(path, "wb", buffering=0)  # noqa: SIM115
    if file is None:
        yield
        return
    was_enabled = faulthandler.is_enabled()
    faulthandler.enable(file, all_threads=False)
    _kept = file
    try:
        yield
    finally:
        _kept = None
        if was_enabled:
            faulthandler.enable(all_threads=False)
        else:
            faulthandler.disable()
        file.close()
        with suppress(OSError):
            os.unlink(path)


def say(words: str) -> None:
    """Write a line to standard error, and to the file where there is one; never waits long."""
    line = f"{words}\n".encode(errors="backslashreplace")
    os.write(2, line)
    if _kept is not None:
        with suppress(OSError):
            _kept.write(line)


def note(line: str) -> None:
    """Write a line to the file alone, for the case that it is the last. It costs microseconds, and
    outlives the process, however that ends."""
    if _kept is not None:
        with suppress(OSError):
            _kept.write(f"{line}\n".encode(errors="backslashreplace"))


def read(path: str, keep: bool = False) -> str | None:
    """What a process has in its file; None where that is nothing.

    Args:
        path: of the file.
        keep: leave it there, because the process is still alive.
    """
    try:
        with open(path, errors="replace") as file:
            words = file.read()
        if not keep:
            os.unlink(path)
    except OSError:
        return None
    return words.strip() or None
