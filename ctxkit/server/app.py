"""The application: routes, errors in OpenAI's form, request ids, limits of bodies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ctxkit import __version__
from ctxkit.errors import CtxkitError
from ctxkit.server.documented import PROBLEMS, document
from ctxkit.server.logs import log_failure, log_request
from ctxkit.server.noted import Noted, noted, noting
from ctxkit.server.problems import Problem, problem_of
from ctxkit.server.routes import (
    chat,
    completions,
    context,
    embeddings,
    health,
    index,
    models,
    page,
    responses,
    sessions,
    stored_responses,
)
from ctxkit.server.service import Service

logger = logging.getLogger(__name__)

_SWEEP_SECONDS = 3600
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


def create_app(service: Service, *, at_end: Callable[[], None] | None = None) -> FastAPI:
    """The ASGI application over a service. at_end: is called when the last answer was given."""
    app = FastAPI(
        title="ctxkit",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        responses=PROBLEMS,
        telemetry={"logs": False},  # FastAPI's OpenTelemetry logs hold the messages of errors, and so content
    )
    setattr(app, "openapi", partial(document, app))  # noqa: B010 - the way that FastAPI names; mypy refuses the plain one
    app.state.service, app.state.at_end = service, at_end
    for route in (
        chat,
        completions,
        responses,
        stored_responses,
        embeddings,
        context,
        sessions,
        index,
        models,
        health,
        page,
    ):
        app.include_router(route.router)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _refused)
    for kind in (Problem, CtxkitError, ValueError, TimeoutError):
        app.add_exception_handler(kind, _failed)
    if service.options.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=list(service.options.cors_origins), allow_headers=["*"])
    app.add_middleware(Watched, service=service)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """While it runs, old sessions are swept. When it ends nobody new is let in, and who is in is answered."""
    service: Service = app.state.service
    sweeping = asyncio.ensure_future(_sweep(service))
    try:
        yield
    finally:
        service.gate.closed = True
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
        if app.state.at_end is not None:
            app.state.at_end()


async def _sweep(service: Service) -> None:
    days, conversations, responses = service.options.keep_sessions_days, service.conversations, service.responses
    while days is not None and conversations is not None and responses is not None:
        try:
            swept = await service.in_thread(conversations.store.delete_older, days * 86_400)
            ended = await service.in_thread(responses.delete_older, days * 86_400)
            logger.info("older than %g days: %d sessions, %d trees of responses were forgotten", days, swept, ended)
        except CtxkitError as error:
            logger.warning("old sessions and responses could not be forgotten: %s", error)
        await asyncio.sleep(_SWEEP_SECONDS)


class Watched:
    """Around every request: its id, the size of its body, how long it took and what became of it."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with noting(_given_id(scope)) as told:
            await self._watch(scope, receive, send, told)

    async def _watch(self, scope: Scope, receive: Receive, send: Send, told: Noted) -> None:
        began, status, read = time.perf_counter(), 0, 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.service.options.max_body_bytes:
                most = self.service.options.max_body_bytes
                raise HTTPException(413, f"the body is larger than {most:,} bytes")  # what FastAPI lets through
            return message

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = {"x-request-id": told.request_id, **self.service.limits.headers(told.owner)}
                more = [(name.encode(), value.encode()) for name, value in added.items()]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        try:
            await self.app(scope, limited, stamped)
        except Exception as error:  # answered here, so that this answer too has an id and a line in the log
            answer = await _failed(Request(scope), error)
            if not status:
                await answer(scope, limited, stamped)
        finally:
            self._note(scope, status or 500, time.perf_counter() - began, told)

    def _note(self, scope: Scope, status: int, seconds: float, told: Noted) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        self.service.metrics.requests.labels(route, str(status)).inc()
        self.service.metrics.seconds.labels(route).observe(seconds)
        log_request(told, scope["method"], route, status, seconds)


def _given_id(scope: Scope) -> str | None:
    given = [value for name, value in scope["headers"] if name == b"x-request-id"]
    return given[0].decode("latin-1") if len(given) == 1 else None


async def _failed(request: Request, error: Exception) -> JSONResponse:
    problem = problem_of(error)
    if problem.status >= 500 and not isinstance(error, Problem):
        log_failure(error)
    return _answer(problem)


async def _malformed(request: Request, error: Exception) -> JSONResponse:
    """What pydantic refuses is a 400 in OpenAI's form, with the field."""
    found: list[dict[str, Any]] = list(error.errors()) if isinstance(error, RequestValidationError) else []
    first = found[0] if found else {"loc": (), "msg": str(error)}
    param = ".".join(str(part) for part in first["loc"] if part != "body") or None
    told = f"`{param}`: {first['msg']}" if param else str(first["msg"])
    return _answer(Problem(400, told, code="invalid_value", param=param))


async def _refused(request: Request, error: Exception) -> JSONResponse:
    """No such path, or not with this method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else str(error)
    code = _CODES.get(status, "refused")
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    return _answer(Problem(status, f"{request.method} {request.url.path}: {detail}", code=code, headers=headers))


def _answer(problem: Problem) -> JSONResponse:
    noted().error = problem.error["code"]
    return JSONResponse(problem.body, status_code=problem.status, headers=problem.headers)
