"""Sentences for the person at the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any


def say_to_user(text: str) -> None:
    """A line on standard error; a run does not fail because nobody can read it."""
    if sys.stderr is None:  # closed when Python began; ``print`` would take standard output
        return
    with suppress(OSError, ValueError, AttributeError):
        print(text, file=sys.stderr, flush=True)


def open_standard_streams() -> None:
    """Give those that the shell closed (``2>&-``) to nobody: else the next file that is opened gets
    their number, and with it what libraries print."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def shown(text: str) -> str:
    """A name on a line of its own, whatever is in it."""
    return text if text.isprintable() else repr(text)


def node_name(node: Mapping[str, Any]) -> str:
    """How a node, as ``ray.nodes()`` gives it, is called."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
