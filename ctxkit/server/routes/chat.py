"""POST /v1/chat/completions."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from ctxkit.context import Plan
from ctxkit.protocols import Model, Reply, Sampling
from ctxkit.server.answering import answers, replies
from ctxkit.server.chat_body import ChatBody
from ctxkit.server.chat_request import ChatRequest
from ctxkit.server.planning import plan_chat, report
from ctxkit.server.problems import problem_of
from ctxkit.server.routes.dependencies import Owner, TheService, unless_gone
from ctxkit.server.service import Service
from ctxkit.server.sse import DONE, EventSourceResponse, event_bytes, with_pings

logger = logging.getLogger(__name__)
router = APIRouter()


@router.post("/v1/chat/completions", response_model=None)
async def chat(body: ChatRequest, request: Request, service: TheService, owner: Owner) -> Response:
    """Answers a conversation; one longer than the window is fitted, and `x_ctxkit` says what was left out."""
    name, model = service.model(body.model)
    ignored = body.ignored_fields()
    sampling = body.sampling(service.options.answer_tokens)
    if body.stream:
        events = _events(service, owner, body, model, sampling, name, ignored)
        first = await anext(events)  # planned and admitted: an error until here is an ordinary answer
        return EventSourceResponse(with_pings(_behind(first, events)))

    async def whole() -> dict[str, Any]:
        async with service.admitted(owner):
            plan = await service.in_thread(planned, service, model, body, sampling)
            found = await replies(model, plan, sampling, body.n or 1)
        for reply in found:
            service.metrics.answered(reply)
        return ChatBody(name, report(plan, ignored)).whole(found)

    return JSONResponse(await unless_gone(request, whole()))


def planned(service: Service, model: Model, body: ChatRequest, sampling: Sampling) -> Plan:
    """The prompt of a request. Raises BudgetInfeasible, PartError, StoreError."""
    return plan_chat(
        model,
        body.messages,
        tools=body.tools or () if body.tool_choice != "none" else (),
        answer_tokens=sampling.max_tokens,
        options=body.ctxkit,
        index=service.index,
        passages=service.options.passages,
    )


async def _events(
    service: Service, owner: str, body: ChatRequest, model: Model, sampling: Sampling, name: str, ignored: list[str]
) -> AsyncGenerator[bytes]:
    async with service.admitted(owner):
        plan = await service.in_thread(planned, service, model, body, sampling)
        making = ChatBody(name, report(plan, ignored))
        yield event_bytes(making.first())
        try:
            async with aclosing(_chunks(service, body, model, plan, sampling, making)) as chunks:
                async for chunk in chunks:
                    yield event_bytes(chunk)
        except Exception as error:  # the status is sent already: the error is an event
            logger.exception("an answer failed")
            yield event_bytes(problem_of(error).body)
            return
        yield event_bytes(DONE)


async def _chunks(
    service: Service, body: ChatRequest, model: Model, plan: Plan, sampling: Sampling, making: ChatBody
) -> AsyncGenerator[dict[str, Any]]:
    n, done = body.n or 1, list[Reply]()
    for at in range(n):
        yield making.begins(at)
    async with aclosing(answers(model, plan, sampling, n)) as items:
        async for at, item in items:
            if isinstance(item, str):
                yield making.piece(at, item)
                continue
            service.metrics.answered(item)
            done.append(item)
            for chunk in making.ends(at, item):
                yield chunk
    if body.stream_options and body.stream_options.include_usage:
        yield making.usage(done)


async def _behind(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(rest) as events:
        yield first
        async for event in events:
            yield event
