"""A storage that fails: an HTTP proxy on loopback that lets some requests come to grief."""

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

Fate = Literal["fine", "busy", "reset", "cut", "unanswered", "expired"]
"""What becomes of a request: ``busy``: a 503; ``reset``: the connection goes before it arrives;
``cut``: it goes in the middle, of the body that is sent up or else of the one that comes down;
``unanswered``: all arrives, and the connection goes before the answer; ``expired``: what S3 says
to credentials that are too old."""

ANSWERS: dict[Fate, tuple[int, str]] = {
    "busy": (503, "ServiceUnavailable"),  # which s3fs does not try again by itself
    "expired": (403, "ExpiredToken"),
}


@dataclass(frozen=True)
class Request:
    """A request that has come.

    Attributes:
        number: it is the how many-th, from 1.
        method: GET, PUT, ….
        path: with the query.
    """

    number: int
    method: str
    path: str


def always_fine(request: Request) -> Fate:
    return "fine"


def every_tenth(request: Request) -> Fate:
    """One request in ten fails, in one way after another."""
    ways: list[Fate] = ["busy", "reset", "cut", "unanswered"]
    turn, place = divmod(request.number, 10)
    return ways[turn % len(ways)] if place == 5 else "fine"


class FlakyProxy(ThreadingHTTPServer):
    """Hands requests on to a server, or not.

    Attributes:
        fate_of: decides what becomes of each request.
        fates: the requests so far and what became of them.
        url: to be asked instead of the server.
    """

    daemon_threads = True

    def __init__(self, port: int, fate_of: Callable[[Request], Fate]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.backend = port
        self.fate_of = fate_of
        self.fates: list[tuple[Request, Fate]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._lock = threading.Lock()

    def decide(self, method: str, path: str) -> Fate:
        with self._lock:
            request = Request(len(self.fates) + 1, method, path)
            fate = self.fate_of(request)
            self.fates.append((request, fate))
            return fate

    def count(self, *fates: Fate) -> int:
        return sum(fate in fates for _, fate in self.fates)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may leave."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FlakyProxy

    def _take(self) -> None:
        fate = self.server.decide(self.command, self.path)
        if fate == "reset":
            self._break_off()
            return
        size = int(self.headers.get("Content-Length", 0))
        if fate == "cut" and size:
            self.rfile.read(size // 2)
            self._break_off()
            return
        body = self.rfile.read(size)
        if fate in ANSWERS:
            self._refuse(*ANSWERS[fate])
            return
        status, headers, answer = self._forward(body)
        if fate == "unanswered":
            self._break_off()
            return
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = dict(headers).get("Content-Length", "0")
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(answer)))
        self.end_headers()
        self.wfile.write(answer[: len(answer) // 2] if fate == "cut" else answer)
        if fate == "cut":
            self._break_off()

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
        said = f"<Error><Code>{code}</Code><Message>the {code} of a test</Message></Error>"
        body = b"" if self.command == "HEAD" else said.encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _break_off(self) -> None:
        """Not an orderly end of the connection, but a reset."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, *words: Any) -> None:
        """Not on the screen of the tests."""

    def finish(self) -> None:
        if self.connection.fileno() >= 0:
            super().finish()


@contextmanager
def flaky(port: int, fate_of: Callable[[Request], Fate] = always_fine) -> Iterator[FlakyProxy]:
    """A proxy before a server on loopback, for the ``with`` block."""
    with FlakyProxy(port, fate_of) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
