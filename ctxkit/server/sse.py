"""Server-sent events: JSON objects as OpenAI's clients read them, and a ping while nothing else is said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Any

from fastapi.sse import EventSourceResponse, format_sse_event

PING_SECONDS = 15.0
DONE = "[DONE]"

__all__ = ["DONE", "PING_SECONDS", "EventSourceResponse", "event_bytes", "with_pings"]

_END = object()


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
