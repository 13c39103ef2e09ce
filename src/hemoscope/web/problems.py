"""Errors as ``application/problem+json`` (RFC 9457): what is wrong, what to do, and a stable code for programs.

The counterpart of ``cli.exit_codes``: library errors become statuses only here. An answer never holds a stack trace, a
path of the server, or a value that the caller sent, which may be a patient's name.
"""

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response
from starlette.routing import Match, Mount

from hemoscope.errors import StoreError
from hemoscope.web.security_headers import secured_headers
from hemoscope.web.static_files import page_text

PROBLEM_JSON = "application/problem+json"

_FIELDS_NAMED = 20
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

_log = logging.getLogger(__name__)

# The status of each error of the store; a missing one would be a 500, which a test looks for.
STORE_STATUS: Mapping[str, int] = {
    "no_such_study": 404,
    "no_such_slice": 404,
    "no_such_series": 404,
    "no_such_label": 404,
    "no_such_measurement": 404,
    "bad_measurement": 422,
    "no_such_destination": 404,
    "no_results": 404,
    "no_pixels": 409,
    "no_maps": 409,
    "no_findings": 409,
    "damaged_pixels": 500,
    "empty_upload": 422,
    "file_too_large": 413,
    "too_many_files": 413,
    "upload_too_large": 413,
    "upload_abandoned": 400,
    "storage_full": 507,
    "bad_feedback": 422,
    "bad_initials": 422,
    "bad_setting": 422,
    "database_unreachable": 503,
    "database_full": 507,
    "storage_unusable": 503,
}

# What a client can do about a status of the framework; our own problems have their own texts.
_REMEDIES: dict[int, str] = {
    400: "Send the request again, well formed",
    404: "Check the address; /openapi.json lists every route",
    405: "Use a method that the Allow header names; /openapi.json lists every route",
    422: "Correct the fields that detail names; /openapi.json describes them",
    500: "Try again; if it persists, the server's log has the location in the program",
}


class Problem(HTTPException):
    """An answer other than success; it may be raised anywhere, also while a body is read.

    Args:
        status: the HTTP status.
        code: a stable word for programs, such as ``unknown_study``.
        detail: what is wrong, in a sentence without identity.
        remedy: what the caller can do; the field ``cure`` of the document.
        headers: to send along, such as ``Retry-After``.
    """

    def __init__(
        self, status: int, *, code: str, detail: str, remedy: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Store the parts; the message is ``detail``."""
        super().__init__(status, detail, dict(headers or {}))
        self.code = code
        self.remedy = remedy

    def response(self) -> Response:
        """Write the problem as JSON; ``type`` is a URN, so that no client is sent to the internet."""
        document = {
            "type": f"urn:hemoscope:problem:{self.code}",
            "title": HTTPStatus(self.status_code).phrase,
            "status": self.status_code,
            "detail": self.detail,
            "cure": self.remedy,
            "code": self.code,
        }
        headers = {"Cache-Control": "no-store", **(self.headers or {})}
        return Response(json.dumps(document), self.status_code, headers, PROBLEM_JSON)


def answer_errors(app: FastAPI) -> None:
    """Register the handlers that turn every error into a problem."""
    app.add_exception_handler(Problem, _own)
    app.add_exception_handler(StoreError, _from_store)
    app.add_exception_handler(HTTPException, _from_framework)
    app.add_exception_handler(RequestValidationError, _from_validation)
    app.add_exception_handler(Exception, _from_bug)


def _own(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


def _from_store(_request: Request, error: Exception) -> Response:
    assert isinstance(error, StoreError)
    detail = f"{error.reason[:1].upper()}{error.reason[1:]}."
    status = STORE_STATUS[error.code]
    headers = {"Retry-After": "5"} if status == 503 else {}
    return Problem(status, code=error.code, detail=detail, remedy=error.remedy, headers=headers).response()


def _from_framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.NOT_FOUND and _asks_for_a_page(request):
        return _missing_page(request)
    phrase = HTTPStatus(error.status_code).phrase
    allow = {"Allow": ", ".join(_allowed(request))} if error.status_code == 405 else {}
    problem = Problem(
        error.status_code,
        code=phrase.lower().replace(" ", "_").replace("-", "_"),
        detail=f"{phrase}.",
        remedy=_REMEDIES.get(error.status_code, _REMEDIES[400]),
        headers={**(error.headers or {}), **allow},
    )
    return problem.response()


def _allowed(request: Request) -> list[str]:
    """The methods of a path; the framework names those of the first of its routes alone. Static files are read."""
    routes = [route for route in request.app.routes if not isinstance(route, Mount)]
    scopes = ((method, {**request.scope, "method": method}) for method in _METHODS)
    found = [method for method, scope in scopes if any(route.matches(scope)[0] is Match.FULL for route in routes)]
    return found or ["GET", "HEAD"]


def _asks_for_a_page(request: Request) -> bool:
    """Whether a person's browser went to this address, rather than a program to the API."""
    is_page = request.method in ("GET", "HEAD") and not request.url.path.startswith("/api/")
    return is_page and "text/html" in request.headers.get("accept", "")


def _missing_page(request: Request) -> Response:
    """The page for an address where nothing is; it repeats nothing of the address."""
    text = page_text("missing.html", request.app.state.app_state.catalogue)
    return HTMLResponse(text, status_code=HTTPStatus.NOT_FOUND)


def _from_validation(request: Request, error: Exception) -> Response:
    """Name the first fields and what is wrong with each, never the value that was sent."""
    assert isinstance(error, RequestValidationError)
    if _asks_for_a_page(request):
        return _missing_page(request)
    first = error.errors()[:_FIELDS_NAMED]
    named = [f"{_place(one)}: {one['msg']}" if _is_ours(one) else "body: not JSON" for one in first]
    problem = Problem(422, code="invalid_request", detail="; ".join(dict.fromkeys(named)) + ".", remedy=_REMEDIES[422])
    return problem.response()


def _is_ours(error: Mapping[str, Any]) -> bool:
    """Whether the message is about a field; a JSON parser's message only quotes a position in the body."""
    return bool(error["type"] != "json_invalid")


def _place(error: Mapping[str, Any]) -> str:
    """``query.limit`` from pydantic's location; an unknown name from the caller is not repeated."""
    extra = error["type"] == "extra_forbidden"
    parts = error["loc"][:-1] if extra else error["loc"]
    return ".".join(str(part) for part in parts)


def _from_bug(request: Request, error: Exception) -> Response:
    """Answer for an unexpected error; the log gets its type, not its message, which may quote a file."""
    _log.error("%s in %s", type(error).__name__, getattr(request.scope.get("route"), "path", "an unknown route"))
    problem = Problem(
        500,
        code="internal_error",
        detail="The server failed on this request.",
        remedy=_REMEDIES[500],
        headers=secured_headers(request.url.scheme),
    )
    return problem.response()
