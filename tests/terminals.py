"""Pseudo-terminals, and what is written to them."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
import threading


class Terminal:
    """A terminal, and what was written to it."""

    def __init__(self, columns: int) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream = open(slave, "w", encoding="utf-8")  # noqa: SIM115
        self._received = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                self._received += os.read(self._master, 65536)
            except OSError:  # the other end was closed
                return

    def close(self) -> str:
        """Return what was written, when all of it was."""
        self.stream.close()
        self._reader.join()
        os.close(self._master)
        return self._received.decode()
