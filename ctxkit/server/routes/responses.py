"""POST /v1/responses: OpenAI's newer API, which openai-agents speaks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response

from ctxkit.server.answering import Piece, replies
from ctxkit.server.ascii_json import AsciiJson
from ctxkit.server.chat_request import ChatRequest
from ctxkit.server.documented import STREAMED
from ctxkit.server.labels import marked
from ctxkit.server.problems import unsupported
from ctxkit.server.responses_body import ResponsesBody
from ctxkit.server.responses_items import as_items
from ctxkit.server.responses_request import ResponsesRequest
from ctxkit.server.routes.dependencies import Owner, TheService, unless_gone
from ctxkit.server.service import Service
from ctxkit.server.sessions.responses import ResponseStore
from ctxkit.server.sse import streamed
from ctxkit.server.telemetry import CHAT, request_attributes, span
from ctxkit.server.turns import Planned, answer_turn, plan_turn, remember_turn

router = APIRouter()


@router.post("/v1/responses", response_model=None, responses=STREAMED)
async def responses(body: ResponsesRequest, request: Request, service: TheService, owner: Owner) -> Response:
    """Answers an input of text or items, alone or behind a stored answer (`previous_response_id`). The answer is stored
    when it is whole, unless `store` is false or the server keeps nothing; its own `store` says whether it was.
    """
    asked = body.checked()
    store = _store(service, asked)
    service.model(asked.model)
    chat = asked.as_chat()  # what is wrong with the input itself is said before it waits
    if asked.stream:
        return await streamed(request, _events(service, owner, asked, chat, store), named=True)

    async def whole() -> dict[str, Any]:
        name, model = service.model(asked.model)
        sampling = chat.sampling(service.answer_tokens(model, chat.ctxkit.window_tokens))
        with span(CHAT, name, request_attributes(sampling, session=chat.ctxkit.session)) as told:
            async with service.admitted(owner):
                on = await _behind(service, owner, asked, chat)
                with told.current():
                    made = await plan_turn(service, owner, model, on, sampling)
                told.fitted(made.report)
                (reply,) = await replies(answer_turn(service, owner, made, model, sampling))
                await remember_turn(service, owner, on, made, reply)
                answer = ResponsesBody(name, asked, made.report, stored=store is not None).whole(reply)
                await _keep(service, owner, store, asked, answer, made)
            told.answered([reply])
        service.answered(reply)
        return answer

    return AsciiJson(await unless_gone(request, whole()))


async def _events(
    service: Service, owner: str, asked: ResponsesRequest, chat: ChatRequest, store: ResponseStore | None
) -> AsyncGenerator[dict[str, Any]]:
    name, model = service.model(asked.model)
    sampling = chat.sampling(service.answer_tokens(model, chat.ctxkit.window_tokens))
    known = request_attributes(sampling, stream=True, session=chat.ctxkit.session)
    with span(CHAT, name, known) as told:
        async with service.admitted(owner):
            on = await _behind(service, owner, asked, chat)
            with told.current():
                made = await plan_turn(service, owner, model, on, sampling)
            told.fitted(made.report)
            making = ResponsesBody(name, asked, made.report, stored=store is not None)
            opening = list(making.begins())
            async with aclosing(answer_turn(service, owner, made, model, sampling)) as items:
                async for _, item in items:
                    while opening:  # not before the first piece, as in chat
                        yield opening.pop(0)
                    if isinstance(item, Piece):
                        for event in making.piece(item.text):
                            yield event
                        continue
                    service.answered(item)
                    told.answered([item])
                    await remember_turn(service, owner, on, made, item)
                    answer = making.whole(item)
                    await _keep(service, owner, store, asked, answer, made)
                    for event in making.ends(answer):
                        yield event


def _store(service: Service, asked: ResponsesRequest) -> ResponseStore | None:
    """Where the answer is to be kept, if at all. A turn of a session is kept by the session. Raises Problem."""
    if asked.previous_response_id is not None and service.responses is None:
        told = "this server keeps no responses: start it with --store, or send the whole input"
        raise unsupported("previous_response_id", told)
    return None if asked.store is False or asked.ctxkit.session is not None else service.responses


async def _behind(service: Service, owner: str, asked: ResponsesRequest, chat: ChatRequest) -> ChatRequest:
    """The request behind what it goes on from. Raises PreviousResponseNotFound."""
    if asked.previous_response_id is None or service.responses is None:
        return chat
    return asked.as_chat(await service.in_thread(service.responses.conversation, owner, asked.previous_response_id))


async def _keep(
    service: Service,
    owner: str,
    store: ResponseStore | None,
    asked: ResponsesRequest,
    answer: Mapping[str, Any],
    made: Planned,
) -> None:
    """On disk when this returns; what was said has the label of its prompt there.

    Raises PreviousResponseNotFound, StoreError.
    """
    if store is not None:
        said = [marked(item, made.trust.prompt) for item in answer["output"]]
        await service.in_thread(store.add, owner, {**answer, "output": said}, as_items(asked.input))
