"""GET /health and /metrics: for whoever watches the server. Public."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from ctxkit.server.problems import Problem, not_found
from ctxkit.server.routes.dependencies import TheService
from ctxkit.server.upstreams import has_any, replica_states

router = APIRouter()


@router.get("/health")
async def health(service: TheService) -> JSONResponse:
    """200 until the server shuts down, 503 then; nobody answers before the models are loaded. Where models are several
    servers it says how they are: "degraded" while one of them is not up, 503 where a model has none left."""
    if service.gate.closed:
        raise Problem(503, "the server is shutting down", type="server_error", code="not_ready")
    states = replica_states(service)
    if any(not has_any(of_model) for of_model in states.values()):
        raise Problem(503, "no server of a model is up", type="server_error", code="not_ready")
    body: dict[str, Any] = {"status": "ok", "models": list(service.models)}
    if states:
        body["replicas"] = {name: [asdict(one) for one in of_model] for name, of_model in states.items()}
    if any(one.state != "up" for of_model in states.values() for one in of_model):
        body["status"] = "degraded"
    return JSONResponse(body)


@router.get("/metrics", response_model=None, responses={200: {"content": {"text/plain": {}}}})
async def metrics(service: TheService) -> Response:
    """In Prometheus' text format."""
    if not service.options.metrics:
        raise not_found("this server shows no metrics", "not_found")
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)
