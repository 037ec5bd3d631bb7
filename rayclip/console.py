"""Messages to the user at the terminal."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TextIO

DEFAULT_WIDTH = 80
NO_CURSOR = ("dumb", "unknown")  # values of TERM
NOTEBOOK = "JPY_PARENT_PID"  # set in processes that Jupyter's kernels start with !


def say_to_user(text: str, stream: TextIO | None = None) -> None:
    """Print lines, ignoring errors such as a closed terminal.

    Args:
        text: the lines; a terminal gets them folded to its width.
        stream: where to print; standard error by default.
    """
    stream = stream or sys.stderr
    if stream is None:  # closed at start; ``print`` would use standard output
        return
    with suppress(OSError, ValueError, AttributeError):
        print(folded(text, stream), file=stream, flush=True)


def can_redraw(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal that can replace what it shows."""
    is_terminal = stream is not None and stream.isatty()
    return is_terminal and os.environ.get("TERM") not in NO_CURSOR and NOTEBOOK not in os.environ


def folded(text: str, stream: TextIO, indent: str = "  ") -> str:
    """Fold lines between words to the width of a terminal; return them unchanged elsewhere.

    Longer words stay whole, so that paths can be copied.

    Args:
        text: the lines.
        stream: where they will be written.
        indent: begins the further lines of each, after the line's own indentation.
    """
    if not stream.isatty():
        return text
    width = terminal_width(stream)
    return "\n".join(_fold(line, width, indent) for line in text.split("\n"))


def terminal_width(stream: TextIO) -> int:
    """Return the columns of a terminal."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or DEFAULT_WIDTH
    except (OSError, ValueError):
        return DEFAULT_WIDTH


def _fold(line: str, width: int, indent: str) -> str:
    own = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(
        line,
        width,
        subsequent_indent=own + indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


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
