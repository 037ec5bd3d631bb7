"""An HTTP proxy on loopback that makes some requests fail."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from loopback_servers import serve

Outcome = Literal["fine", "busy", "reset", "cut", "unanswered", "expired"]
"""What happens to a request.

``busy``: a 503. ``reset``: the connection is reset before the request arrives. ``cut``: it is reset
in the middle of the request's body, or of the response's if the request has none. ``unanswered``:
it is reset after the request, before the response. ``expired``: S3's response to expired
credentials.
"""

ANSWERS: dict[Outcome, tuple[int, str]] = {
    "busy": (503, "ServiceUnavailable"),  # s3fs does not retry this by itself
    "expired": (403, "ExpiredToken"),
}


@dataclass(frozen=True)
class Request:
    """A request to the proxy.

    Attributes:
        number: counted from 1.
        method: GET, PUT, ….
        path: including the query.
    """

    number: int
    method: str
    path: str


def always_fine(request: Request) -> Outcome:
    return "fine"


def every_tenth(request: Request) -> Outcome:
    """Make one request in ten fail, with a different failure each time."""
    failures: list[Outcome] = ["busy", "reset", "cut", "unanswered"]
    turn, digit = divmod(request.number, 10)
    return failures[turn % len(failures)] if digit == 5 else "fine"


class FaultProxy(ThreadingHTTPServer):
    """Forwards requests to a server, or makes them fail.

    Attributes:
        choose_outcome: decides the outcome of each request.
        outcomes: the requests so far with their outcomes.
        url: of the proxy.
    """

    daemon_threads = True

    def __init__(self, port: int, choose_outcome: Callable[[Request], Outcome]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.backend = port
        self.choose_outcome = choose_outcome
        self.outcomes: list[tuple[Request, Outcome]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._lock = threading.Lock()

    def decide(self, method: str, path: str) -> Outcome:
        with self._lock:
            request = Request(len(self.outcomes) + 1, method, path)
            outcome = self.choose_outcome(request)
            self.outcomes.append((request, outcome))
            return outcome

    def count(self, *outcomes: Outcome) -> int:
        return sum(outcome in outcomes for _, outcome in self.outcomes)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy

    def _take(self) -> None:
        outcome = self.server.decide(self.command, self.path)
        if outcome == "reset":
            self._reset_connection()
            return
        size = int(self.headers.get("Content-Length", 0))
        if outcome == "cut" and size:
            self.rfile.read(size // 2)
            self._reset_connection()
            return
        body = self.rfile.read(size)
        if outcome in ANSWERS:
            self._refuse(*ANSWERS[outcome])
            return
        status, headers, answer = self._forward(body)
        if outcome == "unanswered":
            self._reset_connection()
            return
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = dict(headers).get("Content-Length", "0")
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(answer)))
        self.end_headers()
        self.wfile.write(answer[: len(answer) // 2] if outcome == "cut" else answer)
        if outcome == "cut":
            self._reset_connection()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _take  # noqa: N815

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        headers = {k: v for k, v in self.headers.items() if k not in ("Expect", "Connection")}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.backend, timeout=60)
        try:
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def _refuse(self, status: int, code: str) -> None:
        xml = f"<Error><Code>{code}</Code><Message>the {code} of a test</Message></Error>"
        body = b"" if self.command == "HEAD" else xml.encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _reset_connection(self) -> None:
        """Close the connection with a TCP reset."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, *words: Any) -> None:
        """Print nothing during tests."""

    def finish(self) -> None:
        if self.connection.fileno() >= 0:
            super().finish()


@contextmanager
def run_proxy(
    port: int, choose_outcome: Callable[[Request], Outcome] = always_fine
) -> Iterator[FaultProxy]:
    """Run a proxy in front of a server on loopback, for the ``with`` block."""
    with serve(FaultProxy(port, choose_outcome)) as proxy:
        yield proxy
