"""An HTTP server on loopback that serves the files of a folder, and counts their bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from loopback_servers import serve


class FileServer(ThreadingHTTPServer):
    """A folder on loopback that counts requests.

    Attributes:
        ranges: whether parts of files can be had; else each answer is the whole file.
        breaks_at: the connection goes away before this byte of a file is sent.
        status: given for every request instead of an answer.
        served: bytes of files that were sent.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.ranges = True
        self.breaks_at: int | None = None
        self.status: int | None = None
        self.served = 0

    def url(self, path: Path) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path.name}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FileServer

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = self.server.folder / self.path.lstrip("/")
        status = self.server.status or (200 if path.exists() else 404)
        if status != 200:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = path.read_bytes()
        asked = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = 0, len(content) - 1
        if asked and self.server.ranges:
            first, last = int(asked[1]), min(int(asked[2]), last)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        end = last + 1
        if self.server.breaks_at is not None and first <= self.server.breaks_at < end:
            end = self.server.breaks_at
            self.close_connection = True
        for start in range(first, end if with_body else 0, 2**16):
            part = content[start : min(end, start + 2**16)]
            self.wfile.write(part)
            self.server.served += len(part)

    def log_message(self, *words: Any) -> None:
        """Print nothing during tests."""


@contextmanager
def serving(folder: Path) -> Iterator[FileServer]:
    pytest.importorskip("aiohttp")
    with serve(FileServer(folder)) as server:
        yield server
