"""POST /tokenize, and /v1/context/plan: what would be sent, without asking the model."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from ctxkit.protocols import Model
from ctxkit.server.chat_request import ChatRequest
from ctxkit.server.routes.dependencies import Owner, TheService
from ctxkit.server.turns import plan_turn

router = APIRouter()


class TokenizeRequest(BaseModel):
    """A text as it stands, or messages in the model's chat format."""

    model: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None


@router.post("/tokenize")
async def tokenize(body: TokenizeRequest, service: TheService, owner: Owner) -> dict[str, Any]:
    """How many tokens, and which ids where the model's tokenizer is here."""
    _, model = service.model(body.model)
    return await service.in_thread(_tokenized, model, body)


@router.post("/v1/context/plan")
async def plan(body: ChatRequest, service: TheService, owner: Owner) -> dict[str, Any]:
    """The plan of a chat request: every part, its level, its tokens and the reason, and the messages to be sent."""
    _, model = service.model(body.model)
    ignored, sampling = body.ignored_fields(), body.sampling(service.answer_tokens(model, body.ctxkit.window_tokens))
    async with service.admitted(owner):
        made = await plan_turn(service, owner, model, body, sampling, ignored, dry=True)
    return {"object": "context.plan", **made.plan.to_dict(), "x_ctxkit": made.report}


def _tokenized(model: Model, body: TokenizeRequest) -> dict[str, Any]:
    from ctxkit.tokens import messages_from_dicts

    counter = model.counter
    if body.messages is None:
        ids = _text_ids(counter, body.prompt or "")
        count = counter.count(body.prompt or "") if ids is None else len(ids)
    else:
        rendering = counter.render(messages_from_dicts(body.messages), tools=body.tools or ())
        count, ids = rendering.tokens, None if rendering.ids is None else list(rendering.ids)
    return {"count": count, "tokens": ids, "max_model_len": model.window_tokens, "exact": counter.exact}


def _text_ids(counter: Any, text: str) -> list[int] | None:
    """The ids of a text where the counter has a tokenizer."""
    tokenizer = getattr(counter, "tokenizer", None)
    return None if tokenizer is None else list(tokenizer.encode(text, add_special_tokens=False).ids)
