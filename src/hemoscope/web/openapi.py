"""The OpenAPI document at ``/openapi.json``: FastAPI's, with our problems in place of its own errors."""

from typing import Any

from fastapi import FastAPI

from hemoscope.web.schemas import ProblemDocument

_FRAMEWORK_ERRORS = ("HTTPValidationError", "ValidationError")


def describe(app: FastAPI) -> None:
    """Let ``app`` describe itself; the document is made on the first request for it."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        document = plain()  # FastAPI keeps it: the changes below are made to the same object, once or again
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for name in _FRAMEWORK_ERRORS:
            schemas.pop(name, None)
        schemas["ProblemDocument"] = ProblemDocument.model_json_schema()
        return document

    app.openapi = described  # type: ignore[method-assign]
