"""Authentication and authorization: bearer token, session cookie, or the one local administrator.

Every route that is not public depends on ``Reader`` or ``Admin``. A request that changes something must come from our
own page: it carries the session's token in X-CSRF-Token (bearer tokens are exempt, as no browser adds them by itself),
and its Origin or Sec-Fetch-Site header, if any, must be of this site.
"""

import hmac
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyCookie, APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from hemoscope.store.values import Role, User
from hemoscope.web.app_state import AppState, app_state_of
from hemoscope.web.problems import Problem

SESSION_COOKIE = "hemoscope_session"
LOCAL = User(name="local", role=Role.ADMIN)
# Without users there is no session to bind a token to: the presence of the header proves our own page, since another
# site cannot send it (it needs a preflight, which this server never answers).
LOCAL_CSRF = "local"
_PORTS = {"http": 80, "https": 443}
_SAFE = {"GET", "HEAD", "OPTIONS"}

_bearer = HTTPBearer(auto_error=False, description="A token made by hemoscope users token")
_cookie = APIKeyCookie(name=SESSION_COOKIE, auto_error=False, description="The cookie that POST /api/v1/login sets")
_csrf = APIKeyHeader(
    name="X-CSRF-Token", auto_error=False, description="The csrf_token of GET /api/v1/site; not with a bearer token"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An authenticated user; ``csrf`` is what changing requests must carry, None for a bearer token."""

    user: User
    csrf: str | None


def identify(state: AppState, *, bearer: str | None, cookie: str | None) -> Caller | None:
    """Return the caller, or None: no or wrong credentials, an expired session, or a user since removed."""
    credentials = state.credentials
    if not credentials:
        return Caller(user=LOCAL, csrf=LOCAL_CSRF)
    if bearer is not None:
        user = credentials.user_of_token(bearer)
        return Caller(user=user, csrf=None) if user else None
    session = state.store.session(cookie) if cookie else None
    if session is None or not credentials.knows(session.user):
        return None
    return Caller(user=session.user, csrf=session.csrf)


def caller_of(request: Request) -> Caller | None:
    """Return the caller of a request by its current header or cookie."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else None
    return identify(app_state_of(request), bearer=bearer, cookie=request.cookies.get(SESSION_COOKIE))


def reader(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    cookie: Annotated[str | None, Security(_cookie)],
    csrf: Annotated[str | None, Security(_csrf)],
) -> Caller:
    """Require any authenticated user.

    Raises:
        Problem: 401 without authentication, 403 for a changing request that may come from another site.

    """
    state = app_state_of(request)
    caller = identify(state, bearer=bearer.credentials if bearer else None, cookie=cookie)
    if caller is None:
        raise login_required()
    if request.method not in _SAFE:
        check_origin(request)
        _check_csrf(caller, csrf)
    return caller


def admin(caller: "Reader") -> Caller:
    """Require an administrator. Raises Problem 403 for a reader."""
    if caller.user.role is not Role.ADMIN:
        raise Problem(
            403,
            code="admin_only",
            detail="This is for administrators.",
            remedy="Ask an administrator of this site, or log in as one",
        )
    return caller


def check_origin(request: Request) -> None:
    """Refuse a changing request that another site sent, by the browser's headers: scheme, host and port count.

    Raises:
        Problem: 403.

    """
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "same-origin")
    foreign = origin is not None and parsed_origin(origin) != parsed_origin(str(request.base_url))
    if foreign or site not in {"same-origin", "none"}:
        raise Problem(
            403,
            code="foreign_origin",
            detail="This request was sent by a page of another site.",
            remedy=(
                "Use this server's own page, or a bearer token from a program. A proxy must pass Host with its port "
                "and X-Forwarded-Proto, and be named by --trusted-proxy"
            ),
        )


def parsed_origin(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of a URL or an ``Origin`` header; None if it has none, such as ``null``.

    Examples:
        >>> parsed_origin("https://Reading.example") == parsed_origin("https://reading.example:443/")
        True
        >>> parsed_origin("http://reading.example:8001") == parsed_origin("http://reading.example:8000")
        False

    """
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname and port else None


def login_required() -> Problem:
    """401, with the same message for a wrong token as for none."""
    return Problem(
        401,
        code="login_required",
        detail="Nobody is logged in, or the session has ended.",
        remedy="Log in at /login, or send a valid token as Authorization: Bearer",
        headers={"WWW-Authenticate": 'Bearer realm="hemoscope"'},
    )


def _check_csrf(caller: Caller, given: str | None) -> None:
    if caller.csrf is None:
        return
    if given is None or not hmac.compare_digest(given.encode(), caller.csrf.encode()):
        raise Problem(
            403,
            code="csrf_token",
            detail="The header X-CSRF-Token is missing, or is not this session's.",
            remedy="Send the csrf_token of GET /api/v1/site; reload a page that was open for long",
        )


Reader = Annotated[Caller, Depends(reader)]
Admin = Annotated[Caller, Depends(admin)]
