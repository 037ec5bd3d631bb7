"""Starts processes of our own that talk over a connection and keep a crash log.

They are started with ``subprocess``, so programs without a module ``__main__``, such as notebooks,
have them as well.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import uuid
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import NamedTuple

PROGRAM = """
import sys
sys.path[:] = {path!r}
from {module} import main
main({descriptor}, {crash_log!r})
"""


class Child(NamedTuple):
    """A process that was started.

    Attributes:
        process: the process.
        connection: to it.
        crash_log: path of the log that says how it died.
    """

    process: subprocess.Popen[bytes]
    connection: Connection
    crash_log: str


def start_child(module: str, name: str, is_quiet: bool = False) -> Child:
    """Start a process that runs ``main(descriptor, crash_log)`` of a module, with the descriptor of
    its end of the connection and the path of its log.

    Args:
        module: in Python's notation.
        name: names the log.
        is_quiet: whether its standard error is discarded, and the terminal's signals do not reach
            it.

    Raises:
        OSError: it cannot be started.
    """
    crash_log = os.path.join(tempfile.gettempdir(), f"rayclip-{name}-{uuid.uuid4().hex}")
    connection, other_end = Pipe()
    descriptor = other_end.fileno()
    program = PROGRAM.format(
        path=sys.path, module=module, descriptor=descriptor, crash_log=crash_log
    )
    with other_end:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # only the command prints results
            stderr=subprocess.DEVNULL if is_quiet else None,
            pass_fds=[descriptor],
            start_new_session=is_quiet,
        )
    return Child(process, connection, crash_log)
