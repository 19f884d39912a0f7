"""POST /v1/embeddings and /v1/rerank: texts as vectors, and texts by a question."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ctxkit.protocols import Encoder
from ctxkit.server.noted import noted
from ctxkit.server.problems import Problem, unsupported
from ctxkit.server.routes.dependencies import Owner, TheService
from ctxkit.server.service import Service
from ctxkit.server.telemetry import EMBEDDINGS, INPUT_TOKENS, span

if TYPE_CHECKING:
    import numpy as np

router = APIRouter()
_MOST_TEXTS = 2048  # as OpenAI's


class EmbeddingRequest(BaseModel):
    """As OpenAI writes it. Lists of token ids are not taken: they are of another tokenizer."""

    input: str | list[str] | list[int] | list[list[int]]
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class RerankRequest(BaseModel):
    """As Cohere's and vLLM's: documents are texts."""

    query: str
    documents: list[str] = Field(min_length=1, max_length=_MOST_TEXTS)
    model: str | None = None
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool = False


@router.post("/v1/embeddings")
async def embeddings(body: EmbeddingRequest, service: TheService, owner: Owner) -> dict[str, Any]:
    """One vector for each text, of the index's encoder."""
    encoder = _encoder(service)
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not texts or len(texts) > _MOST_TEXTS or not all(isinstance(text, str) and text for text in texts):
        raise Problem(
            400, f"`input` must be 1 to {_MOST_TEXTS:,} texts, none of them empty", code="invalid_value", param="input"
        )
    if body.dimensions not in (None, encoder.dims):
        raise unsupported("dimensions", f"this encoder's vectors have {encoder.dims} dimensions, no other number")
    with span(EMBEDDINGS, encoder.name) as told:
        async with service.admitted(owner):
            rows, tokens = await service.in_thread(_encoded, encoder, [str(text) for text in texts])
        told.set({INPUT_TOKENS: tokens})
    noted().model, noted().prompt_tokens = encoder.name, tokens
    data = [
        {"object": "embedding", "index": at, "embedding": _written(row, body.encoding_format)}
        for at, row in enumerate(rows)
    ]
    service.limits.charge(owner, tokens)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": encoder.name, "usage": usage}


@router.post("/v1/rerank")
async def rerank(body: RerankRequest, service: TheService, owner: Owner) -> dict[str, Any]:
    """The documents by how well they answer, the best first; scores are cosines of the index's encoder, or MaxSim."""
    encoder = _encoder(service)
    async with service.admitted(owner):
        scores = await service.in_thread(_scores, encoder, body.query, body.documents)
    order = sorted(range(len(scores)), key=lambda at: (-scores[at], at))[: body.top_n]
    results: list[dict[str, Any]] = [{"index": at, "relevance_score": scores[at]} for at in order]
    if body.return_documents:
        results = [{**one, "document": {"text": body.documents[one["index"]]}} for one in results]
    return {"model": encoder.name, "results": results}


def _encoder(service: Service) -> Encoder:
    if service.encoder is None:
        raise Problem(501, "this server has no encoder; start it with --index", code="no_encoder")
    return service.encoder


def _encoded(encoder: Encoder, texts: list[str]) -> tuple[list[np.ndarray], int]:
    if encoder.multi_vector:
        raise Problem(501, f"{encoder.name} has one vector per token; embeddings need one per text", code="no_encoder")
    vectors = encoder.encode_documents(texts)
    return [vectors[at][0] for at in range(len(vectors))], sum(encoder.count_batch(texts))


def _written(row: np.ndarray, form: str) -> str | list[float]:
    """base64 of little-endian float32, what OpenAI's client asks for by default, or numbers."""
    return base64.b64encode(row.astype("<f4").tobytes()).decode() if form == "base64" else [float(x) for x in row]


def _scores(encoder: Encoder, query: str, documents: list[str]) -> list[float]:
    """MaxSim (arXiv 2004.12832): of one vector per text it is the cosine."""
    asked, found = encoder.encode_queries([query])[0], encoder.encode_documents(documents)
    return [float((asked @ found[at].T).max(axis=1).mean()) if len(found[at]) else 0.0 for at in range(len(found))]
