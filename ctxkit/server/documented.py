"""The OpenAPI document: every status that a route may answer with, and errors in the form they have."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream` as server-sent events.",
        "content": {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {}},
    }
}
"""Of routes that answer whole or in a stream."""

_STATUSES = {
    400: "The request cannot be done as it was asked; `param` names the field.",
    401: "No API key, or one that is not known here.",
    404: "There is no such thing, for this key.",
    409: "Somebody else wrote to it in the meantime.",
    413: "The body is too large.",
    429: "Too many requests are waiting; `retry-after` says when to come back.",
    500: "The server failed.",
    501: "This server was started without it.",
    502: "The engine behind this server failed.",
    503: "Not now; `retry-after` may say when.",
    504: "It took too long.",
}


class ErrorDetail(BaseModel):
    """Further fields say more, as `minimum_feasible` of `context_length_exceeded`."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    error: ErrorDetail


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": told} for status, told in _STATUSES.items()
}
"""Of every route."""


def document(app: FastAPI) -> dict[str, Any]:
    """The document, made once; without FastAPI's own 422, which is a 400 here."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, routes=app.routes)
        for path in found["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for unused in ("HTTPValidationError", "ValidationError"):
            found["components"]["schemas"].pop(unused, None)
        app.openapi_schema = found
    return app.openapi_schema
