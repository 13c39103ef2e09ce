"""OpenAPI descriptions of problem answers and raw bodies, and conditional requests (ETag)."""

from typing import Any

from fastapi import Request
from starlette.responses import Response

from hemoscope.web.problems import PROBLEM_JSON

API = "/api/v1"

_MEANINGS = {
    400: "The request is malformed",
    401: "Nobody is logged in",
    403: "Not allowed, or the CSRF token is missing",
    404: "Not found",
    408: "The body is too slow",
    409: "Not available: the study is still being read or scored, or has failed",
    413: "Too large",
    415: "Another content type is needed, or the body is compressed",
    422: "A field is out of range",
    429: "Too many requests",
    503: "Not ready, or too busy",
    507: "The disk is full",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe problem answers for a route's ``responses``; those of every route are among them."""
    return {
        status: {
            "description": _MEANINGS[status],
            "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
        for status in sorted({*statuses, 429})
    }


def raw(content_type: str, description: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """Describe an answer that is not a JSON model."""
    shape = {"type": "string", "format": "binary"} if schema is None else schema
    return {"description": description, "content": {content_type: {"schema": shape}}}


def unchanged(request: Request, etag: str) -> bool:
    """Whether the client has this version already (RFC 9110, If-None-Match)."""
    given = request.headers.get("if-none-match", "")
    return any(tag.strip().removeprefix("W/") == etag.removeprefix("W/") for tag in given.split(","))


def not_modified(headers: dict[str, str]) -> Response:
    """304 with the headers of the full answer."""
    return Response(status_code=304, headers=headers)


def openapi_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON Schema document as it may stand inside OpenAPI: its ``$defs`` are written out where they are used."""
    definitions = schema.get("$defs", {})

    def inlined(part: Any) -> Any:
        if isinstance(part, list):
            return [inlined(one) for one in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return inlined(definitions[part["$ref"].removeprefix("#/$defs/")])
        return {key: inlined(value) for key, value in part.items() if key not in {"$defs", "$id", "$schema"}}

    document: dict[str, Any] = inlined(schema)
    return document
