"""What routes are given: the service, and who asks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from ctxkit.server.noted import noted
from ctxkit.server.problems import Problem
from ctxkit.server.service import Service

T = TypeVar("T")


async def service_of(request: Request) -> Service:
    # Coroutines, both of them: FastAPI runs plain functions in a thread, each time.
    return request.app.state.service


async def owner_of(request: Request) -> str:
    """Who asks. Raises Problem 401."""
    owner = (await service_of(request)).keys.owner_of(request.headers.get("authorization"))
    noted().owner = owner
    return owner


TheService = Annotated[Service, Depends(service_of)]
Owner = Annotated[str, Depends(owner_of)]


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The work's result; cancels it where the client goes away, so that nobody computes for nobody."""
    doing = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait([doing, watching], return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise Problem(499, "the client closed the connection", code="client_closed_request")
    finally:
        for one in (doing, watching):
            one.cancel()
        await asyncio.gather(doing, watching, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
