"""GET /v1/models, and one of them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from ctxkit.server.routes.dependencies import Owner, TheService

router = APIRouter()


@router.get("/v1/models")
async def models(service: TheService, owner: Owner) -> dict[str, Any]:
    """The models that can be asked."""
    return {"object": "list", "data": [service.described(name) for name in service.models]}


@router.get("/v1/models/{model:path}")
async def model(model: str, service: TheService, owner: Owner) -> dict[str, Any]:
    """One model; a name may have slashes."""
    name, _ = service.model(model)
    return service.described(name)
