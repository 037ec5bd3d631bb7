"""``rayclip serve`` as a command, on real sockets."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from unittest.mock import MagicMock
from urllib.parse import urlsplit

import psutil
import pytest
from run_cli import call
from served_pages import Drawn

from rayclip.errors import UsageError
from rayclip.serve.listening import address, listen
from rayclip.serve.server import ServeRequest, folders_to_show

DEADLINE_S = 60.0


def other_addresses() -> list[str]:
    """The addresses of this machine that are not loopback."""
    found = [entry for entries in psutil.net_if_addrs().values() for entry in entries]
    ips = [entry.address for entry in found if entry.family == socket.AF_INET]
    return [ip for ip in ips if not ip.startswith("127.")]


def get(host: str, port: int, path: str, cookie: str = "") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(host, port, timeout=DEADLINE_S)
    with closing(connection):
        connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
        answer = connection.getresponse()
        answer.read()
        return answer


@pytest.fixture(scope="module")
def command(
    drawn: Drawn, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[subprocess.Popen[str]]:
    """The command, on all interfaces."""
    words = ["serve", drawn.output, "--videos", drawn.videos, "--host", "0.0.0.0", "--port", "0"]
    env = {**os.environ, "TMPDIR": str(tmp_path_factory.mktemp("temporary"))}
    with subprocess.Popen(
        [sys.executable, "-m", "rayclip", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    ) as started:
        yield started
        started.kill()


def test_the_command_serves_until_it_is_interrupted(
    command: subprocess.Popen[str],
) -> None:
    assert command.stdout is not None
    url = urlsplit(command.stdout.readline().strip())
    assert url.port is not None
    for host in ["127.0.0.1", *other_addresses()]:
        assert get(host, url.port, "/").status == 403, "no token, no page"
        assert get(host, url.port, "/videos/0123456789abcdef").status == 403
    let_in = get("127.0.0.1", url.port, f"/?{url.query}")
    assert let_in.status == 303
    cookie = str(let_in.getheader("set-cookie")).split(";")[0]
    assert get("127.0.0.1", url.port, "/?q=a+red+circle", cookie).status == 200

    children = psutil.Process(command.pid).children()
    assert children
    command.send_signal(signal.SIGINT)
    _, errors = command.communicate(timeout=DEADLINE_S)
    assert command.returncode == 130
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_by_default_only_this_machine_can_connect() -> None:
    with closing(listen("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        for host in other_addresses():
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((host, port), timeout=5)


def test_a_port_that_is_taken_is_said() -> None:
    with closing(listen("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port}: Address already in use"):
            listen("127.0.0.1", port)


def test_without_a_port_another_free_one_is_taken() -> None:
    with closing(listen("127.0.0.1", None)) as first, closing(listen("127.0.0.1", None)) as second:
        assert first.getsockname()[1] != second.getsockname()[1]


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match=f"Cannot listen on {host}"):
        listen(host, 0)


def test_the_address_can_be_opened() -> None:
    with closing(listen("::1", 0)) as listening:
        assert address(listening, "::1").startswith("http://[::1]:")
    with closing(listen("0.0.0.0", 0)) as listening:
        assert address(listening, "0.0.0.0").startswith(f"http://{socket.gethostname()}:")


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    ended = call("serve", tmp_path)
    assert ended.status == 2
    assert "pip install 'rayclip[serve]'" in ended.stderr


@pytest.mark.parametrize("words", [["--videos", "nowhere"], ["--port", "99999"]])
def test_bad_options_are_said(drawn: Drawn, words: list[str]) -> None:
    ended = call("serve", drawn.output, *words)
    assert ended.status == 2
    assert ended.stderr.startswith("rayclip: ")


@pytest.mark.parametrize("answer", [True, False])
def test_the_user_is_asked_about_the_folders_of_the_run(
    drawn: Drawn, monkeypatch: pytest.MonkeyPatch, answer: bool
) -> None:
    asked = []

    def ask(question: str) -> bool:
        asked.append(question)
        return answer

    monkeypatch.setattr(sys, "stdin", MagicMock(isatty=lambda: True))
    request = ServeRequest(str(drawn.output), "127.0.0.1", 0, [], None)
    assert folders_to_show(request, {}, ask) == ([str(drawn.videos)] if answer else [])
    assert asked == [f"Show videos of {drawn.videos}?"]


def test_without_a_terminal_nobody_is_asked(
    drawn: Drawn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", MagicMock(isatty=lambda: False))
    request = ServeRequest(str(drawn.output), "127.0.0.1", 0, [], None)
    assert folders_to_show(request, {}, MagicMock(side_effect=AssertionError)) == []
    assert f"--videos. The run's videos were in {drawn.videos}." in capsys.readouterr().err


def test_folders_that_are_named_are_not_asked_about(drawn: Drawn) -> None:
    request = ServeRequest(str(drawn.output), "127.0.0.1", 0, ["videos", "more"], None)
    assert folders_to_show(request, {}, MagicMock(side_effect=AssertionError)) == ["videos", "more"]


def test_a_folder_without_features_is_said(tmp_path: Path) -> None:
    ended = call("serve", tmp_path)
    assert ended.status == 2
    assert "run.json" in ended.stderr
