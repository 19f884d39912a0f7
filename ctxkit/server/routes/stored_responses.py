"""/v1/responses/ID: answers that were stored, read again and forgotten."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from ctxkit.server.ascii_json import AsciiJson
from ctxkit.server.problems import Problem, unsupported
from ctxkit.server.responses_items import Order, page
from ctxkit.server.routes.dependencies import Owner, TheService
from ctxkit.server.service import Service
from ctxkit.server.sessions.responses import ResponseStore

router = APIRouter()


@router.get("/v1/responses/{response_id}", response_class=AsciiJson)
async def retrieved(response_id: str, service: TheService, owner: Owner, stream: bool = False) -> dict[str, Any]:
    """An answer as it was given."""
    if stream:
        raise unsupported("stream", "a stored answer is whole; ask for it without `stream`")
    return await service.in_thread(_kept(service).get, owner, response_id)


@router.delete("/v1/responses/{response_id}")
async def deleted(response_id: str, service: TheService, owner: Owner) -> dict[str, Any]:
    """Forgets an answer and its input. Nobody can go on from it any more, nor from answers that went on from it."""
    await service.in_thread(_kept(service).delete, owner, response_id)
    return {"id": response_id, "object": "response", "deleted": True}


@router.get("/v1/responses/{response_id}/input_items", response_class=AsciiJson)
async def input_items(
    response_id: str,
    service: TheService,
    owner: Owner,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Order = "desc",
) -> dict[str, Any]:
    """What an answer was made from: the items of its request, and of all before it."""
    items = await service.in_thread(_kept(service).items, owner, response_id)
    return page(items, after, limit, order)


def _kept(service: Service) -> ResponseStore:
    if service.responses is None:
        raise Problem(501, "this server keeps no responses; start it with --store", code="no_responses")
    return service.responses
