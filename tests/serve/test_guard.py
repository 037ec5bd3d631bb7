"""Who is let in to the page."""

from __future__ import annotations

import hmac
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from rayclip.serve.guard import Guard

HOST = "http://127.0.0.1:8765"
TOKEN = "the-token"


async def inside(request: Request) -> Response:
    return PlainTextResponse("inside")


@pytest.fixture
def stranger() -> TestClient:
    routes = [Route("/{path:path}", inside, methods=["GET", "POST"])]
    guard = Guard(Starlette(routes=routes), TOKEN, 8765, ["workstation"])
    return TestClient(guard, HOST, follow_redirects=False)


@pytest.fixture
def client(stranger: TestClient) -> TestClient:
    """It has exchanged the token."""
    stranger.get("/", params={"token": TOKEN})
    return stranger


@pytest.mark.parametrize("path", ["/", "/videos/0123456789abcdef", "/static/page.js", "/nothing"])
@pytest.mark.parametrize("token", [None, "", "the-toke", "the-token2", "the-tokén"])
def test_without_the_token_nothing_is_shown(
    stranger: TestClient, path: str, token: str | None
) -> None:
    answer = stranger.get(path, params={} if token is None else {"token": token})
    assert answer.status_code == 403
    assert "inside" not in answer.text
    assert "set-cookie" not in answer.headers


def test_the_token_is_exchanged_for_a_cookie_and_leaves_the_address(stranger: TestClient) -> None:
    answer = stranger.get("/", params={"token": TOKEN, "q": "a dog & a cat"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/?q=a+dog+%26+a+cat")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie
    assert stranger.get("/?q=a").text == "inside"


def test_the_exchange_leads_to_no_other_host(stranger: TestClient) -> None:
    answer = stranger.get(f"{HOST}//evil.example/?token={TOKEN}")
    assert answer.headers["location"].startswith("/evil.example")


def test_tokens_are_compared_in_constant_time(
    stranger: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[Any] = []

    def compare(first: bytes, second: bytes) -> bool:
        compared.append(second)
        return first == second

    monkeypatch.setattr(hmac, "compare_digest", compare)
    stranger.get("/", params={"token": "wrong"})
    stranger.get("/", headers={"Cookie": "rayclip-8765=wrong"})
    assert compared[0] == TOKEN.encode()
    assert len(compared) == 2


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "a@b", "[::1"])
def test_another_host_is_refused_even_with_the_cookie(client: TestClient, host: str) -> None:
    for path in ("/", f"/?token={TOKEN}"):
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code == 421
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("host", ["localhost:9", "[::1]:8765", "10.0.0.7:8765", "WorkStation:8765"])
def test_addresses_and_names_of_this_machine_are_known(client: TestClient, host: str) -> None:
    cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    assert client.get("/", headers={"Host": host, "Cookie": cookie}).text == "inside"


@pytest.mark.parametrize(
    "origin",
    [None, "null", "http://evil.example", "http://127.0.0.1:9999", "https://127.0.0.1:8765"],
)
def test_another_site_cannot_post(client: TestClient, origin: str | None) -> None:
    headers = {} if origin is None else {"Origin": origin}
    assert client.post("/pictures", content=b"x", headers=headers).status_code == 403


def test_the_page_itself_can_post(client: TestClient) -> None:
    assert client.post("/pictures", content=b"x", headers={"Origin": HOST}).text == "inside"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_or_port_cannot_fetch(client: TestClient, site: str) -> None:
    assert client.get("/", headers={"Sec-Fetch-Site": site}).status_code == 403


def test_every_answer_says_what_the_page_may_do(client: TestClient) -> None:
    for answer in (client.get("/"), client.get("/", headers={"Host": "evil.example"})):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
