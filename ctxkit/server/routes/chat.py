"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from ctxkit.protocols import Model, Reply, Sampling
from ctxkit.server.answering import Piece, replies
from ctxkit.server.chat_body import ChatBody
from ctxkit.server.chat_request import ChatRequest
from ctxkit.server.documented import STREAMED
from ctxkit.server.routes.dependencies import Owner, TheService, unless_gone
from ctxkit.server.service import Service
from ctxkit.server.sse import streamed
from ctxkit.server.telemetry import CHAT, request_attributes, span
from ctxkit.server.turns import answer_turn, plan_turn, remember_turn

router = APIRouter()


@router.post("/v1/chat/completions", response_model=None, responses=STREAMED)
async def chat(body: ChatRequest, request: Request, service: TheService, owner: Owner) -> Response:
    """Answers a conversation; one longer than the window is fitted, and `x_ctxkit` says what was left out."""
    name, model = service.model(body.model)
    ignored = body.ignored_fields()
    sampling = body.sampling(service.answer_tokens(model, body.ctxkit.window_tokens))
    if body.stream:
        return await streamed(request, _chunks(service, owner, body, model, sampling, name, ignored))

    async def whole() -> dict[str, Any]:
        known = request_attributes(sampling, n=body.n or 1, session=body.ctxkit.session)
        with span(CHAT, name, known) as told:
            async with service.admitted(owner):
                with told.current():
                    made = await plan_turn(service, owner, model, body, sampling, ignored)
                told.fitted(made.report)
                found = await replies(answer_turn(service, owner, made, model, sampling, body.n or 1))
                await remember_turn(service, owner, body, made, found[0])
            told.answered(found)
        for reply in found:
            service.answered(reply)
        return ChatBody(name, made.report).whole(found)

    return JSONResponse(await unless_gone(request, whole()))


async def _chunks(
    service: Service, owner: str, body: ChatRequest, model: Model, sampling: Sampling, name: str, ignored: list[str]
) -> AsyncGenerator[dict[str, Any]]:
    n, done = body.n or 1, list[Reply]()
    known = request_attributes(sampling, n=n, stream=True, session=body.ctxkit.session)
    with span(CHAT, name, known) as told:
        async with service.admitted(owner):
            with told.current():
                made = await plan_turn(service, owner, model, body, sampling, ignored)
            told.fitted(made.report)
            making = ChatBody(name, made.report)
            opening = [making.first(), *map(making.begins, range(n))]
            async with aclosing(answer_turn(service, owner, made, model, sampling, n)) as items:
                async for at, item in items:
                    while opening:  # not before the first piece: a model that refuses is then an error with its status
                        yield opening.pop(0)
                    if isinstance(item, Piece):
                        for chunk in making.piece(at, item):
                            yield chunk
                        continue
                    service.answered(item)
                    done.append(item)
                    await remember_turn(service, owner, body, made, item)
                    for chunk in making.ends(at, item):
                        yield chunk
        told.answered(done)
    if body.stream_options and body.stream_options.include_usage:
        yield making.usage(done)
