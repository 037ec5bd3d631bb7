"""Lets nobody in but browsers that were given the token, and tells them what the page may do."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Iterable
from urllib.parse import urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN = "token"
READING = ("GET", "HEAD")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
NO_TOKEN = "This page needs its token: open the address that `rayclip serve` printed.\n"


class Guard:
    """An ASGI application around another one.

    - The ``Host`` must be an address, ``localhost`` or this machine's name. Other names may have
      been made to point here (DNS rebinding).
    - A request must not come from another site or port, as browsers tell by ``Origin`` and
      ``Sec-Fetch-Site``. One that is not for reading must have an ``Origin``.
    - The token of the address is exchanged for a cookie, and taken out of the address. Other
      requests need the cookie, which other sites cannot send.
    """

    def __init__(self, app: ASGIApp, token: str, port: int, names: Iterable[str] = ()) -> None:
        """Wrap an application.

        Args:
            app: the application.
            token: admits whoever has it.
            port: of the server; cookies do not tell ports apart, so it is part of their name.
            names: hosts that are allowed besides addresses and ``localhost``.
        """
        self._app = app
        self._token = token
        self._cookie = f"rayclip-{port}"
        self._session = secrets.token_urlsafe(32)
        self._names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page has no WebSockets
            raise RuntimeError(f"unexpected {scope['type']}")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        app = self._refusal(Request(scope)) or self._app
        await app(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        """What to answer instead; None lets the request in."""
        if not self._is_known(request.headers.get("host", "")):
            return PlainTextResponse("This address is not of this server.\n", 421)
        if (given := request.query_params.get(TOKEN)) is not None and request.method in READING:
            return self._exchange(request) if _same(given, self._token) else _forbidden()
        if not _has_own_origin(request):
            return PlainTextResponse("Other sites may not use this page.\n", 403)
        session = request.cookies.get(self._cookie, "")
        return None if _same(session, self._session) else _forbidden()

    def _exchange(self, request: Request) -> Response:
        rest = [pair for pair in request.query_params.multi_items() if pair[0] != TOKEN]
        path = "/" + request.url.path.lstrip("/")  # `//host` would lead to another host
        response = RedirectResponse(f"{path}?{urlencode(rest)}" if rest else path, 303)
        response.set_cookie(self._cookie, self._session, httponly=True, samesite="strict")
        return response

    def _is_known(self, host: str) -> bool:
        name = _host_name(host)
        return name is not None and (name in self._names or _is_address(name))


def machine_names() -> list[str]:
    """Return the names of this machine."""
    return [socket.gethostname(), socket.getfqdn()]


def _has_own_origin(request: Request) -> bool:
    headers: Headers = request.headers
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return False
    origin = headers.get("origin")
    if origin is None:
        return request.method in READING
    return origin == f"{request.url.scheme}://{headers.get('host', '')}"


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same(given: str, expected: str) -> bool:
    """Compare in a time that does not tell how much is right."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())


def _forbidden() -> Response:
    return PlainTextResponse(NO_TOKEN, 403)
