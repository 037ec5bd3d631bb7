"""Messages to the user at the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any


def say_to_user(text: str) -> None:
    """Print a line to standard error, ignoring errors such as a closed terminal."""
    if sys.stderr is None:  # closed at start; ``print`` would use standard output
        return
    with suppress(OSError, ValueError, AttributeError):
        print(text, file=sys.stderr, flush=True)


def open_standard_streams() -> None:
    """Open closed standard streams (``2>&-``) on the null device.

    Otherwise the next opened file gets their descriptor, and with it the output of libraries.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor, which is this one
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def shown(text: str) -> str:
    """Return a name as it is if it is printable, otherwise its ``repr``."""
    return text if text.isprintable() else repr(text)


def node_name(node: Mapping[str, Any]) -> str:
    """Return the display name of a node from ``ray.nodes()``."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
