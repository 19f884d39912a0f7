"""GET /health and /metrics: for whoever watches the server. Public."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from ctxkit.server.problems import Problem, not_found
from ctxkit.server.routes.dependencies import TheService

router = APIRouter()


@router.get("/health")
async def health(service: TheService) -> JSONResponse:
    """200 once the models are loaded, until the server shuts down; 503 else."""
    if not service.ready or service.gate.closed:
        state = "shutting down" if service.gate.closed else "loading"
        raise Problem(503, f"the server is {state}", type="server_error", code="not_ready")
    return JSONResponse({"status": "ok", "models": list(service.models)})


@router.get("/metrics", response_model=None, responses={200: {"content": {"text/plain": {}}}})
async def metrics(service: TheService) -> Response:
    """In Prometheus' text format."""
    if not service.options.metrics:
        raise not_found("this server shows no metrics", "not_found")
    service.metrics.running.set(service.gate.running)
    service.metrics.waiting.set(service.gate.waiting)
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)
