"""POST /v1/responses: OpenAI's newer API, which openai-agents speaks."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from ctxkit.server.answering import Piece, replies
from ctxkit.server.chat_request import ChatRequest
from ctxkit.server.documented import STREAMED
from ctxkit.server.problems import unsupported
from ctxkit.server.responses_body import ResponsesBody
from ctxkit.server.responses_request import ResponsesRequest
from ctxkit.server.routes.dependencies import Owner, TheService, unless_gone
from ctxkit.server.service import Service
from ctxkit.server.sse import streamed
from ctxkit.server.telemetry import CHAT, request_attributes, span
from ctxkit.server.turns import answer_turn, plan_request, remember_turn

router = APIRouter()


@router.post("/v1/responses", response_model=None, responses=STREAMED)
async def responses(body: ResponsesRequest, request: Request, service: TheService, owner: Owner) -> Response:
    """Answers an input of text or items; `previous_response_id` is not kept here yet, and refused."""
    asked = body.checked()
    if asked.previous_response_id is not None:
        raise unsupported("previous_response_id", "answers are not stored here; send the whole input")
    service.model(asked.model)
    chat = asked.as_chat([])
    if asked.stream:
        return await streamed(request, _events(service, owner, asked, chat), named=True)

    async def whole() -> dict[str, Any]:
        name, model = service.model(asked.model)
        sampling = chat.sampling(service.answer_tokens(model, chat.ctxkit.window_tokens))
        with span(CHAT, name, request_attributes(sampling, session=chat.ctxkit.session)) as told:
            async with service.admitted(owner):
                with told.current():
                    made = await service.in_thread(plan_request, service, owner, model, chat, sampling)
                told.fitted(made.report)
                (reply,) = await replies(answer_turn(service, owner, made, model, sampling))
                await remember_turn(service, owner, chat, made, reply)
            told.answered([reply])
        service.answered(reply)
        return ResponsesBody(name, asked, made.report).whole(reply)

    return JSONResponse(await unless_gone(request, whole()))


async def _events(
    service: Service, owner: str, asked: ResponsesRequest, chat: ChatRequest
) -> AsyncGenerator[dict[str, Any]]:
    name, model = service.model(asked.model)
    sampling = chat.sampling(service.answer_tokens(model, chat.ctxkit.window_tokens))
    known = request_attributes(sampling, stream=True, session=chat.ctxkit.session)
    with span(CHAT, name, known) as told:
        async with service.admitted(owner):
            with told.current():
                made = await service.in_thread(plan_request, service, owner, model, chat, sampling)
            told.fitted(made.report)
            making = ResponsesBody(name, asked, made.report)
            opening = list(making.begins())
            async with aclosing(answer_turn(service, owner, made, model, sampling)) as items:
                async for _, item in items:
                    while opening:  # not before the first piece, as in chat
                        yield opening.pop(0)
                    if not isinstance(item, Piece):
                        service.answered(item)
                        told.answered([item])
                        await remember_turn(service, owner, chat, made, item)
                    for event in making.piece(item.text) if isinstance(item, Piece) else making.ends(item):
                        yield event
