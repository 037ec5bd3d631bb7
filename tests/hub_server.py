"""A small Hugging Face Hub on loopback: answers what huggingface_hub asks about models."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants
from loopback_servers import serve

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".model")
API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?")
RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
STORE = re.compile(r"/store/(?P<sha256>[0-9a-f]{64})/(?P<name>.+)")


@dataclass
class Repo:
    """A repository with one branch, main.

    Attributes:
        files: content by name; the hash of the commit follows from them.
        license: among the tags.
        token: that requests need; None answers everybody.
        gated: whether everybody sees its files and only the token gets them.
    """

    files: dict[str, bytes]
    license: str | None = None
    token: str | None = None
    gated: bool = False
    history: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self) -> str:
        """Return the hash of the newest commit."""
        content = repr(sorted(self.files.items())).encode()
        commit = hashlib.sha1(content).hexdigest()
        self.history[commit] = dict(self.files)
        return commit


class HubServer(http.server.ThreadingHTTPServer):
    """The server. Large files are in a store, at another origin than the hub.

    Attributes:
        repos: by name.
        faults: what happens to the next downloads of files, one each: ``cut``, ``wrong`` or a
            status.
        downloads: how often each file was downloaded, by its name; a part counts.
        requests: method, path and the token that was sent (None without) of each request.
        valid_tokens: others are refused; None takes every token.
        page: the answer to everything, as a proxy's; None to be a hub.
        may_answer: cleared, it keeps whoever downloads waiting after half of the file.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repos: dict[str, Repo] = {}
        self.faults: list[str] = []
        self.downloads: Counter[str] = Counter()
        self.requests: list[tuple[str, str, str | None]] = []
        self.valid_tokens: set[str] | None = None
        self.page: tuple[int, bytes] | None = None
        self.may_answer = threading.Event()
        self.may_answer.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def store_url(self) -> str:
        return f"http://localhost:{self.server_address[1]}/store"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that left


class _Answers(http.server.BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"  # which ranges need

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        self.server.requests.append((self.command, path, token))
        valid = self.server.valid_tokens
        if self.server.page is not None:
            self._answer(self.server.page[0], body=self.server.page[1])
        elif token is not None and valid is not None and token not in valid:
            message = "Invalid credentials in Authorization header"
            self._answer(401, {"X-Error-Message": message})
        elif match := API.fullmatch(path):
            self._describe(match["repo"], match["revision"] or "main", token)
        elif match := RESOLVE.fullmatch(path):
            self._resolve(match["repo"], match["revision"], match["name"], token)
        elif match := STORE.fullmatch(path):
            self._send_from_store(match["sha256"], match["name"])
        else:
            self._answer(404)

    def _describe(self, name: str, revision: str, token: str | None) -> None:
        found = self._find(name, revision, token, to_read=False)
        if found is None:
            return
        repo, commit = found
        files = repo.history[commit].items()
        body = {
            "id": name,
            "sha": commit,
            "private": repo.token is not None and not repo.gated,
            "gated": "manual" if repo.gated else False,
            "tags": ["open_clip", *([f"license:{repo.license}"] if repo.license else [])],
            "siblings": [_sibling(file, content) for file, content in files],
        }
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(body).encode())

    def _resolve(self, name: str, revision: str, file: str, token: str | None) -> None:
        found = self._find(name, revision, token, to_read=True)
        if found is None:
            return
        repo, commit = found
        headers = {"X-Repo-Commit": commit}
        content = repo.history[commit].get(file)
        if content is None:
            self._answer(404, {**headers, "X-Error-Code": "EntryNotFound"})
        elif file.endswith(LFS_SUFFIXES):
            sha256 = hashlib.sha256(content).hexdigest()
            headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
            self._answer(302, {**headers, "Location": f"{self.server.store_url}/{sha256}/{file}"})
        else:
            self._send(file, content, {**headers, "ETag": f'"{_git_hash(content)}"'})

    def _find(
        self, name: str, revision: str, token: str | None, to_read: bool
    ) -> tuple[Repo, str] | None:
        repo = self.server.repos.get(name)
        is_open = repo and (repo.token in (None, token) or (repo.gated and not to_read))
        if repo is None or not (is_open or repo.gated):
            self._answer(401 if token is None else 404, {"X-Error-Code": "RepoNotFound"})
        elif not is_open:
            self._answer(401 if token is None else 403, {"X-Error-Code": "GatedRepo"})
        elif revision not in ("main", repo.commit()) and revision not in repo.history:
            self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        else:
            return repo, repo.commit() if revision == "main" else revision
        return None

    def _send_from_store(self, sha256: str, name: str) -> None:
        for repo in self.server.repos.values():
            for files in repo.history.values():
                content = files.get(name)
                if content is not None and hashlib.sha256(content).hexdigest() == sha256:
                    self._send(name, content, {"ETag": f'"{sha256}"'})
                    return
        self._answer(404)

    def _send(self, name: str, content: bytes, headers: dict[str, str]) -> None:
        if self.command == "HEAD":
            self._answer(200, headers, content)
            return
        self.server.downloads[name] += 1
        fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault.isdigit():
            self._answer(int(fault))
            return
        if fault == "wrong":
            content = bytes(255 - byte for byte in content)
        status = 200
        if part := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start, end = int(part[1]), len(content) - 1
            headers = {**headers, "Content-Range": f"bytes {start}-{end}/{len(content)}"}
            content, status = content[start:], 206
        self._answer(status, headers, content, is_file=True, cut=fault == "cut")

    def _answer(
        self,
        status: int,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        is_file: bool = False,
        cut: bool = False,
    ) -> None:
        if status >= 400:
            message = (headers or {}).get("X-Error-Message", HTTPStatus(status).phrase)
            body = json.dumps({"error": message}).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")  # a server that is off answers nobody
        self.end_headers()
        if self.command == "HEAD":
            return
        middle = len(body) // 2
        self.wfile.write(body[:middle])
        if is_file:
            self.server.may_answer.wait()
        if not cut:
            self.wfile.write(body[middle:])

    def log_message(self, *_: object) -> None:
        pass


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": _git_hash(content)}
    if name.endswith(LFS_SUFFIXES):
        sha256 = hashlib.sha256(content).hexdigest()
        found["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
    return found


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def hub_server(**repos: Repo) -> Iterator[HubServer]:
    """Serve in a ``with`` block; after it, connections are refused."""
    with serve(HubServer()) as server:
        server.repos.update(repos)
        try:
            yield server
        finally:
            server.may_answer.set()


def use_hub(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process use another hub, though huggingface_hub is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("HF_ENDPOINT", url)


def use_empty_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process have an empty cache, and no token."""
    for name in os.environ:
        if name.startswith(("HF_", "HUGGING")) or name == "TRANSFORMERS_OFFLINE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
