"""POST /v1/completions: a text goes on. Older than chat, and still what many programs ask."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from ctxkit.protocols import Model, Reply, Sampling
from ctxkit.server.answering import Item, Piece, answers, replies
from ctxkit.server.chat_body import usage_of
from ctxkit.server.chat_request import StreamOptions
from ctxkit.server.documented import STREAMED
from ctxkit.server.problems import unsupported
from ctxkit.server.routes.dependencies import Owner, TheService, unless_gone
from ctxkit.server.service import Service
from ctxkit.server.sse import streamed
from ctxkit.server.telemetry import COMPLETION, request_attributes, span

router = APIRouter()
_UNSUPPORTED = {"echo": (None, False), "best_of": (None, 1), "suffix": (None, ""), "logit_bias": (None, {})}


class CompletionRequest(BaseModel):
    """As OpenAI writes it. The prompt is one text; it is sent as one message of the user in the model's chat format."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    prompt: str | list[str] | list[int] | list[list[int]]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    n: int | None = Field(default=None, ge=1, le=16)
    stop: str | list[str] | None = None
    seed: int | None = None
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)

    def text(self) -> str:
        """Raises Problem for anything but one text."""
        for name, neutral in _UNSUPPORTED.items():
            if (self.model_extra or {}).get(name) not in neutral:
                raise unsupported(name, f"`{name}` is not supported here; leave it out")
        texts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        if len(texts) != 1 or not isinstance(texts[0], str):
            raise unsupported("prompt", "`prompt` must be one text; send a request for each")
        return texts[0]

    def sampling(self, answer_tokens: int) -> Sampling:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            max_tokens=self.max_tokens or answer_tokens,
            temperature=self.temperature or 0.0,
            top_p=self.top_p or 1.0,
            stop=tuple(stop),
            seed=self.seed,
            frequency_penalty=self.frequency_penalty or 0.0,
        )


@router.post("/v1/completions", response_model=None, responses=STREAMED)
async def completions(body: CompletionRequest, request: Request, service: TheService, owner: Owner) -> Response:
    """Answers one text. A prompt longer than the window is refused: there are no parts to choose from."""
    name, model = service.model(body.model)
    text, sampling, n = body.text(), body.sampling(service.answer_tokens(model)), body.n or 1
    head = {"id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time()), "model": name}
    if body.stream:
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        return await streamed(request, _chunks(service, owner, model, text, sampling, n, head, with_usage))

    async def whole() -> dict[str, Any]:
        with span(COMPLETION, name, request_attributes(sampling, n=n)) as told:
            async with service.admitted(owner):
                found = await replies(await _metered(service, owner, model, text, sampling, n))
            told.answered(found)
        for reply in found:
            service.answered(reply)
        choices = [_choice(at, reply.text, reply.finish_reason) for at, reply in enumerate(found)]
        return {**head, "choices": choices, "usage": usage_of(found)}

    return JSONResponse(await unless_gone(request, whole()))


async def _metered(
    service: Service, owner: str, model: Model, text: str, sampling: Sampling, n: int
) -> AsyncGenerator[Item]:
    """The answers, whose tokens count for the owner's limit."""
    limited = service.limits.per_minute["tokens"] is not None
    read = await service.in_thread(model.counter.count, text) if limited else 0
    return service.limits.metered(owner, read, n * sampling.max_tokens, answers(model, text, sampling, n))


def _choice(at: int, text: str, finish_reason: str | None) -> dict[str, Any]:
    return {"index": at, "text": text, "logprobs": None, "finish_reason": finish_reason}


async def _chunks(
    service: Service,
    owner: str,
    model: Model,
    text: str,
    sampling: Sampling,
    n: int,
    head: dict[str, Any],
    with_usage: bool,
) -> AsyncGenerator[dict[str, Any]]:
    done: list[Reply] = []
    with span(COMPLETION, head["model"], request_attributes(sampling, n=n, stream=True)) as told:
        async with (
            service.admitted(owner),
            aclosing(await _metered(service, owner, model, text, sampling, n)) as items,
        ):
            async for at, item in items:
                if isinstance(item, Piece):
                    if item.text:
                        yield {**head, "choices": [_choice(at, item.text, None)]}
                    continue
                service.answered(item)
                done.append(item)
                yield {**head, "choices": [_choice(at, "", item.finish_reason)]}
        told.answered(done)
    if with_usage:
        yield {**head, "choices": [], "usage": usage_of(done)}
