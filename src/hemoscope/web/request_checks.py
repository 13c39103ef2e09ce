"""Checks every request before anything reads it: host name, rate, coding and size of the body.

The host check stops DNS rebinding: a page of another site whose name was made to point at this server still sends its
own name. Bodies are small everywhere except at the upload, which checks its own limits.
"""

import math
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hemoscope.store.settings import Settings
from hemoscope.web.problems import Problem
from hemoscope.web.rate_limits import RateLimiter

UPLOAD_PATH = "/api/v1/uploads"
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_SMALL_BODY = 64 << 10
_MOST_BODY = {"/api/v1/login": 16 << 10}  # anybody may send it; a name, password and token, in any escapes, are shorter
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*)(:[0-9]{0,5})?")
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


class Gate:
    """ASGI middleware that answers requests that are not allowed with a problem."""

    def __init__(self, app: ASGIApp, *, settings: Settings, login_required: bool) -> None:
        """Wrap ``app``."""
        self._app = app
        self._host_names = host_names(settings)
        self._login_required = login_required
        self._limiter = RateLimiter(per_minute=settings.requests_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope, Headers(scope=scope))
        except Problem as problem:
            await problem.response()(scope, receive, send)
            return
        if scope["path"] == UPLOAD_PATH:
            await self._app(scope, receive, send)
        else:
            await self._app(scope, _limited(receive, _most_body(scope)), send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        name = host_name(headers.get("host", ""))
        if name is None:
            raise _malformed_host()
        if name not in self._host_names:
            raise _unknown_host()
        if not self._login_required and any(header in headers for header in _FORWARDED):
            raise _proxied_without_login()
        if wait_s := self._limiter.wait_s(client_of(scope)):
            raise too_often(wait_s)
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise _encoded_body()
        if "content-length" in headers and "transfer-encoding" in headers:
            raise _two_lengths()
        length = headers.get("content-length", "0")
        if scope["path"] != UPLOAD_PATH and length.isdigit() and int(length) > _most_body(scope):
            raise _body_too_large(_most_body(scope))


def host_names(settings: Settings) -> frozenset[str]:
    """Every name, without port and in lower case, under which requests are answered."""
    host = settings.host
    bound = () if host in {"0.0.0.0", "::", ""} else (bracketed(host),)  # noqa: S104 (a comparison)
    return frozenset(name.lower() for name in (*_LOOPBACK_NAMES, *bound, *settings.allowed_host))


def bracketed(host: str) -> str:
    """An address as it is written in a URL: IPv6 in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def host_name(header: str) -> str | None:
    """The ``Host`` header without its port, in lower case; None if it is not a host and a port (RFC 9110, 7.2).

    Examples:
        >>> host_name("Localhost:8000"), host_name("[::1]:8000"), host_name("reading.example")
        ('localhost', '[::1]', 'reading.example')
        >>> host_name("localhost:8000@other.example") is None
        True

    """
    found = _HOST.fullmatch(header)
    return None if found is None else found["name"].lower()


def client_of(scope: Scope) -> str:
    """The address that rates are counted by; behind a trusted proxy uvicorn puts the browser's address here."""
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def too_often(wait_s: float) -> Problem:
    """429, with the seconds to wait."""
    seconds = math.ceil(wait_s)
    return Problem(
        429,
        code="too_many_requests",
        detail="Too many requests from this client.",
        remedy=f"Wait {seconds} s and try again",
        headers={"Retry-After": str(seconds)},
    )


def _most_body(scope: Scope) -> int:
    return _MOST_BODY.get(scope["path"], _SMALL_BODY)


def _limited(receive: Receive, most: int) -> Receive:
    """Count a body that came without a length."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise _body_too_large(most)
        return message

    return counted


def _unknown_host() -> Problem:
    return Problem(
        421,
        code="unknown_host",
        detail="This server does not answer under the host name of this request.",
        remedy="Use the address that the server printed at its start, or start it with --allowed-host NAME",
    )


def _malformed_host() -> Problem:
    return Problem(
        400,
        code="malformed_host",
        detail="The Host header is not the name of a host with a port.",
        remedy="Send the address that the server printed at its start",
        headers={"Connection": "close"},
    )


def _proxied_without_login() -> Problem:
    return Problem(
        403,
        code="proxy_without_login",
        detail="This request came through a proxy, and this server has no users: all behind the proxy would be let in.",
        remedy="Start the server with --users FILE or --token-file FILE",
    )


def _encoded_body() -> Problem:
    return Problem(
        415,
        code="encoded_body",
        detail="The body of this request is compressed (Content-Encoding), which this server does not read.",
        remedy="Send it without Content-Encoding; a ZIP of files may be uploaded",
        headers={"Accept-Encoding": "identity"},
    )


def _two_lengths() -> Problem:
    """A proxy may have gone by the other length, and taken part of a body for the next request (RFC 9112, 6.1)."""
    return Problem(
        400,
        code="two_lengths",
        detail="This request has both Content-Length and Transfer-Encoding.",
        remedy="Send one of them",
        headers={"Connection": "close"},
    )


def _body_too_large(most: int) -> Problem:
    return Problem(
        413,
        code="body_too_large",
        detail=f"The body of this request is larger than {most >> 10} KiB.",
        remedy="Send less; files go to POST /api/v1/uploads",
    )
