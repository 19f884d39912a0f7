"""Problems: every error as OpenAI's API writes it, {"error": {message, type, param, code}}, and its status."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ctxkit.errors import (
    BudgetInfeasible,
    ContextTruncatedByServer,
    CtxkitError,
    DocumentError,
    MemoryInsufficient,
    MissingExtra,
    PartError,
    PromptError,
    RemoteError,
    RemoteRejected,
    RemoteTimeout,
    RemoteUnavailable,
)
from ctxkit.models.wire import RetryLater
from ctxkit.server.indexes import NoSuchIndex
from ctxkit.server.sessions.responses import PreviousResponseNotFound, ResponseNotFound
from ctxkit.server.sessions.store import SessionConflict, SessionNotFound

INVALID = "invalid_request_error"
_RETRY_SECONDS = 1
_UNAUTHORIZED = (401, 403)
_ADDRESS = re.compile(r"https?://\S*[\w/]")
_FOLDERS = re.compile(r"(?<![\w/])(?:/[\w.~-]+)+/(?=[\w.~-])")
_GIVE_UP = {"x-should-retry": "false"}  # OpenAI's client tries again after 409 and all above 500 unless it is told


class Problem(Exception):
    """An answer that is an error. param: the field at fault. more: further fields of the error object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID,
        code: str | None = None,
        param: str | None = None,
        more: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"message": message, "type": type, "param": param, "code": code, **(more or {})}
        self.headers = {**(_GIVE_UP if status == 501 else {}), **(headers or {})}

    @property
    def body(self) -> dict[str, Any]:
        return {"error": self.error}


def unsupported(param: str, why: str) -> Problem:
    return Problem(400, why, code="unsupported_parameter", param=param)


def not_found(what: str, code: str, param: str | None = None) -> Problem:
    return Problem(404, what, code=code, param=param)


def too_many(message: str, seconds: int = _RETRY_SECONDS) -> Problem:
    """seconds: until it is worth another try."""
    headers = {"retry-after": str(seconds), "x-should-retry": "true"}
    return Problem(429, message, type="rate_limit_error", code="rate_limit_exceeded", headers=headers)


def problem_of(error: Exception) -> Problem:
    """The problem that an error is to the person who asked. What nobody foresaw is a 500 that tells no internals."""
    match error:
        case Problem():
            return error
        case SessionNotFound():
            return not_found(str(error), "session_not_found", "session")
        case ResponseNotFound():
            return not_found(str(error), "response_not_found", "response_id")
        case PreviousResponseNotFound():
            return not_found(str(error), "previous_response_not_found", "previous_response_id")
        case NoSuchIndex():
            return not_found(str(error), "index_not_found", "index")
        case DocumentError():
            return Problem(400, str(error), code="unreadable_document", param="documents")
        case SessionConflict():
            return Problem(409, str(error), code="session_conflict", param="session", headers=_GIVE_UP)
        case BudgetInfeasible():
            more = {
                "required_tokens": sum(error.by_part.values()) + error.reserve_tokens,
                "minimum_feasible": error.minimum,
                "window_tokens": error.window_tokens,
            }
            return Problem(400, str(error), code="context_length_exceeded", param="messages", more=more)
        case PromptError() | PartError():
            return Problem(400, str(error), code="invalid_prompt", param="messages")
        case MemoryInsufficient():
            headers = {"retry-after": str(_RETRY_SECONDS)}
            return Problem(503, str(error), type="server_error", code="out_of_memory", headers=headers)
        case RemoteError():
            return _of_upstream(error)
        case TimeoutError():
            return timed_out("the request took longer than this server allows")
        case CtxkitError() if error.retryable:
            headers = {"retry-after": str(_RETRY_SECONDS)}
            return Problem(503, _without_folders(error), type="server_error", code="try_again", headers=headers)
        case MissingExtra():
            return Problem(501, str(error), type="server_error", code="missing_extra")
        case CtxkitError():
            code = _snake(type(error).__name__)
            return Problem(500, _without_folders(error), type="server_error", code=code, headers=_GIVE_UP)
        case ValueError():
            return Problem(400, str(error), code="invalid_value")
    return Problem(500, "the server failed at this request; its log says why", type="server_error", code="internal")


def _without_folders(error: Exception) -> str:
    """The message; of a path on this machine only its last name, which is the client's own."""
    return _FOLDERS.sub("", str(error))


def timed_out(message: str) -> Problem:
    return Problem(504, message, type="server_error", code="timeout", headers=_GIVE_UP)


def _of_upstream(error: RemoteError) -> Problem:
    """What the server behind this one said, without where it stands."""
    message = _ADDRESS.sub("the upstream server", str(error))
    match error:
        case RemoteRejected() if error.status in _UNAUTHORIZED:  # this server's key is wrong, not the client's
            return Problem(502, message, type="server_error", code="upstream_unauthorized", headers=_GIVE_UP)
        case RemoteRejected():
            return Problem(400, message, code=error.code or "upstream_rejected", param=error.param)
        case RemoteTimeout():
            return timed_out(message)
        case ContextTruncatedByServer():
            more = {"planned_tokens": error.planned_tokens, "reported_tokens": error.reported_tokens}
            headers = _GIVE_UP
            return Problem(502, message, type="server_error", code="context_truncated", more=more, headers=headers)
        case RemoteUnavailable(status=429):
            return too_many(message, _pause(error))
        case RetryLater():
            headers = {"retry-after": str(_pause(error))}
            return Problem(503, message, type="server_error", code="upstream_unavailable", headers=headers)
    headers = {"retry-after": str(_RETRY_SECONDS)} if error.retryable else _GIVE_UP
    return Problem(502, message, type="server_error", code="upstream_unavailable", headers=headers)


def _pause(error: RemoteError) -> int:
    """Seconds to wait, at least one."""
    asked = error.retry_after_seconds if isinstance(error, RetryLater) else 0
    return max(math.ceil(asked), _RETRY_SECONDS)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
