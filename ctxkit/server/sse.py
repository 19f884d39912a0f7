"""Server-sent events: JSON objects as OpenAI's clients read them, and a ping while nothing else is said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from fastapi import Request
from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.types import Receive, Scope, Send

from ctxkit.server.logs import log_failure
from ctxkit.server.noted import noted
from ctxkit.server.problems import Problem, problem_of
from ctxkit.server.routes.dependencies import unless_gone

PING_SECONDS = 15.0
DONE = "[DONE]"

_MOST_AHEAD = 64  # events that wait for a slow client before the model is not read any further
_PING = format_sse_event(comment="ping")
_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

Chunks = AsyncGenerator[Mapping[str, Any]]


async def streamed(request: Request, chunks: Chunks, *, named: bool = False) -> EventSourceResponse:
    """The chunks as events, with pings. Waits for the first, though no longer than for a ping: what fails until then is
    no stream yet, but an ordinary error with its status.

    named: each event has its chunk's `type` for a name, as of the responses API; without, the stream ends by [DONE].
    """
    events = Events(chunks, named=named)
    try:
        await unless_gone(request, events.begun())
    except BaseException:
        await events.aclose()
        raise
    return _EventResponse(events)


class _EventResponse(EventSourceResponse):
    """Ends the events, and with them the answer, when the client has gone."""

    def __init__(self, events: Events) -> None:
        super().__init__(events.joined())
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()


class Events:
    """Chunks as events on the wire. One task reads the chunks from the first to the last; events that are ready at the
    same time are joined, so that a server that is behind writes less often.

    ping_seconds: the longest silence.
    """

    def __init__(self, chunks: Chunks, *, named: bool = False, ping_seconds: float = PING_SECONDS) -> None:
        self._chunks = chunks
        self._named = named
        self._ready: list[bytes] = []
        self._ended = self._quiet = self._given = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None  # waits for more
        self._maker: asyncio.Future[None] | None = None  # waits for room
        self._loop = asyncio.get_running_loop()
        self._tick_seconds = ping_seconds / 2
        self._timer = self._loop.call_later(self._tick_seconds, self._tick)
        self._task = asyncio.ensure_future(self._make())

    async def begun(self) -> None:
        """Waits until there is something to send. Raises the error that came first."""
        if not self._ready and not self._ended:
            await self._wait()
        self._given = True
        if self._error is not None:
            raise self._error

    async def joined(self) -> AsyncGenerator[bytes]:
        """What is ready, again and again."""
        while True:
            if not self._ready:
                if self._ended:
                    return
                await self._wait()
                continue
            ready, self._ready = self._ready, []
            _release(self._maker)
            yield b"".join(ready)

    async def aclose(self) -> None:
        """Stops the answer where it has not ended."""
        self._timer.cancel()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _wait(self) -> None:
        self._reader = self._loop.create_future()
        await self._reader

    async def _make(self) -> None:
        try:
            async with aclosing(self._chunks) as chunks:
                async for chunk in chunks:
                    self._add(event_bytes(chunk, str(chunk["type"]) if self._named else None))
                    if len(self._ready) >= _MOST_AHEAD:
                        self._maker = self._loop.create_future()
                        await self._maker
            if not self._named:
                self._add(event_bytes(DONE))
        except Exception as error:
            self._fail(error)
        finally:
            self._ended = True
            self._timer.cancel()
            _release(self._reader)

    def _fail(self, error: Exception) -> None:
        """An error where nothing was given yet is the answer; else the status is sent, and the error is an event."""
        if not self._given and not self._ready:
            self._error = error
            return
        self._add(_failure(error, self._named))

    def _add(self, event: bytes) -> None:
        self._ready.append(event)
        self._quiet = False
        _release(self._reader)

    def _tick(self) -> None:
        """A ping where nothing was said since the last tick."""
        if self._quiet and not self._ready:
            self._add(_PING)
        self._quiet = True
        self._timer = self._loop.call_later(self._tick_seconds, self._tick)


def _release(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


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
    text = data if isinstance(data, str) else _COMPACT.encode(data)
    return format_sse_event(data_str=text, event=event)
