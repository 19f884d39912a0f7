"""Logs of a server: a record is one line, JSON or text, with the id of its request. No content is in them, no key."""

from __future__ import annotations

import json
import logging
import traceback
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal

from ctxkit.server.noted import Noted, request_id

LogFormat = Literal["text", "json"]

_QUIET = frozenset({"/health", "/metrics"})  # asked every few seconds by whoever watches
_requests = logging.getLogger("ctxkit.server.requests")


def log_request(noted: Noted, method: str, route: str, status: int, seconds: float) -> None:
    """One record for one request. route: with its parameters as names, so that it tells nothing of the client's."""
    level = logging.DEBUG if route in _QUIET and status < 400 else logging.INFO
    known = {key: value for key, value in asdict(noted).items() if value is not None and key != "request_id"}
    fields = {"method": method, "route": route, "status": status, "seconds": round(seconds, 4), **known}
    _requests.log(level, "request", extra={"fields": fields})


def log_failure(error: Exception) -> None:
    """An error that nobody foresaw, with the place where it happened."""
    logging.getLogger("ctxkit.server").error("a request failed: %s", type(error).__name__, exc_info=error)


class WithRequest(logging.Filter):
    """Gives a record the `request_id` of the request during which it was made; "-" outside of one."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id() or "-"
        return True


class Lines(logging.Formatter):
    """messages: show the messages of unforeseen errors too, which may hold content; else their types and places."""

    def __init__(self, form: LogFormat, *, messages: bool = False) -> None:
        super().__init__()
        self.form = form
        self.messages = messages

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        head = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "request_id": getattr(record, "request_id", "-"),
            "message": record.getMessage(),
        }
        error = record.exc_info[1] if record.exc_info else None
        failed: dict[str, Any] = {} if error is None else {"error_at": places_of(error)}
        if error is not None and self.messages:
            failed["traceback"] = "".join(traceback.format_exception(error))
        line = {**head, **fields, **failed}
        return json.dumps(line) if self.form == "json" else _as_text(line)


def _as_text(line: dict[str, Any]) -> str:
    head = [line.pop(name) for name in ("time", "level", "logger", "request_id", "message")]
    words = [*map(str, head), *(f"{name}={value}" for name, value in line.items())]
    return " ".join(word.replace("\n", "\\n").replace("\r", "\\r") for word in words)


def places_of(error: BaseException) -> list[str]:
    """An error and what caused it, the outermost first: `Type at file:line in function`, without the messages."""
    found: list[str] = []
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        frames = traceback.extract_tb(one.__traceback__)
        where = f" at {frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
        found.append(f"{type(one).__name__}{where}")
        one = one.__cause__ or one.__context__
    return found


def configure_logs(form: LogFormat, *, debug: bool = False) -> None:
    """The logs of this process go to stderr, one line each. For a program that is a server, not for a library."""
    handler = logging.StreamHandler()
    handler.setFormatter(Lines(form, messages=debug))
    handler.addFilter(WithRequest())
    ours = ("ctxkit", "uvicorn")  # what libraries warn of is for developers
    handler.addFilter(lambda record: debug or record.levelno >= logging.ERROR or record.name.startswith(ours))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("ctxkit").setLevel(logging.DEBUG if debug else logging.INFO)
