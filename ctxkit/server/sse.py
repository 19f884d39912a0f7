"""Server-sent events: JSON objects as OpenAI's clients read them, and a ping while nothing else is said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import Any

from fastapi.sse import EventSourceResponse, format_sse_event

from ctxkit.server.logs import log_failure
from ctxkit.server.noted import noted
from ctxkit.server.problems import Problem, problem_of

PING_SECONDS = 15.0
DONE = "[DONE]"

_END = object()


async def streamed(chunks: AsyncGenerator[Mapping[str, Any]], *, named: bool = False) -> EventSourceResponse:
    """The chunks as events, with pings. Waits for the first: what fails until then is no stream yet, but an ordinary
    error with its status.

    named: each event has its chunk's `type` for a name, as of the responses API; without, the stream ends by [DONE].
    """
    first = await anext(chunks, None)
    return EventSourceResponse(with_pings(_events(first, chunks, named)))


async def _events(
    first: Mapping[str, Any] | None, rest: AsyncGenerator[Mapping[str, Any]], named: bool
) -> AsyncGenerator[bytes]:
    def event_of(chunk: Mapping[str, Any]) -> bytes:
        return event_bytes(chunk, str(chunk["type"]) if named else None)

    try:
        async with aclosing(rest) as chunks:
            if first is not None:
                yield event_of(first)
            async for chunk in chunks:
                yield event_of(chunk)
    except Exception as error:  # the status is sent already: the error is an event
        yield _failure(error, named)
        return
    if not named:
        yield event_bytes(DONE)


def _failure(error: Exception, named: bool) -> bytes:
    problem = problem_of(error)
    noted().error = problem.error["code"]
    if problem.status >= 500 and not isinstance(error, Problem):
        log_failure(error)
    if not named:
        return event_bytes(problem.body)
    told = {key: problem.error[key] for key in ("code", "message", "param")}
    return event_bytes({"type": "error", "sequence_number": 0, **told, "error": problem.error}, "error")


def event_bytes(data: Mapping[str, Any] | str, event: str | None = None) -> bytes:
    """One event on the wire. event: its name, for protocols that name them."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return format_sse_event(data_str=text, event=event)


async def with_pings(events: AsyncGenerator[bytes], every_seconds: float = PING_SECONDS) -> AsyncGenerator[bytes]:
    """The events, with a comment where none came for a while. Closing it closes them."""
    step: asyncio.Future[Any] | None = None
    try:
        while True:
            step = step or asyncio.ensure_future(_next(events))
            done, _ = await asyncio.wait([step], timeout=every_seconds)
            if not done:
                yield format_sse_event(comment="ping")
                continue
            found, step = step.result(), None
            if found is _END:
                return
            yield found
    finally:
        if step is not None:
            step.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await step
        if (close := getattr(events, "aclose", None)) is not None:
            await close()


async def _next(events: AsyncGenerator[bytes]) -> Any:
    return await anext(events, _END)
