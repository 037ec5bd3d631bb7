"""The socket of the server, and the address to open."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress

from rayclip.errors import UsageError

DEFAULT_PORT = 8765
BACKLOG = 2048  # connections, as uvicorn has it


def listen(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: an address or a name of this machine.
        port: None takes the default one, or a free one.

    Raises:
        UsageError: this is not possible.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in (DEFAULT_PORT, 0) if port is None else (port,):
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, candidate))
            bound.listen(BACKLOG)  # now, since others may still take a port that is only bound
        except (OSError, OverflowError) as error:
            bound.close()
            if candidate == DEFAULT_PORT and port is None:
                continue
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"Cannot listen on {host}, port {candidate}: {reason}.") from error
        return bound
    raise AssertionError("a free port was asked for")


def address(listening: socket.socket, host: str) -> str:
    """Return the address of the page: of this machine's name if it listens everywhere."""
    with suppress(ValueError):
        parsed = ipaddress.ip_address(host)
        if parsed.is_unspecified:
            host = socket.gethostname()
        elif parsed.version == 6:
            host = f"[{host}]"
    return f"http://{host}:{listening.getsockname()[1]}/"
