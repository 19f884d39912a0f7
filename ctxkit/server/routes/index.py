"""/v1/index: documents of the caller's own, added, searched and deleted."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field, field_validator

from ctxkit.context.labels import Label
from ctxkit.server.indexes import GivenDocument, Indexes
from ctxkit.server.problems import Problem
from ctxkit.server.routes.dependencies import Owner, TheService
from ctxkit.server.service import Service
from ctxkit.server.telemetry import RETRIEVAL, TOP_K, span

router = APIRouter()


class DocumentBody(BaseModel):
    """source: the document's name; a document of the same name is replaced.

    metadata: "label" says how far its text is trusted, as of `ctxkit.Label`; it is untrusted without.
    """

    source: str = Field(min_length=1, max_length=512)
    text: str = Field(min_length=1)
    metadata: dict[str, Any] = {}

    @field_validator("metadata")
    @classmethod
    def _labelled(cls, metadata: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(label := metadata.get("label", ""), str):
            raise ValueError("`label` must be a text")
        Label.parse(label)
        return metadata


class NewDocuments(BaseModel):
    documents: list[DocumentBody] = Field(min_length=1, max_length=1000)


class Sources(BaseModel):
    sources: list[str] = Field(min_length=1)


class SearchBody(BaseModel):
    query: str = Field(min_length=1)
    k: int = Field(default=10, ge=1, le=1000)
    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    where: dict[str, Any] | None = None


@router.get("/v1/index")
async def names(service: TheService, owner: Owner) -> dict[str, Any]:
    """The caller's indexes."""
    found = await service.in_thread(_indexes(service).names, owner)
    return {"object": "list", "data": [{"object": "index", "id": name} for name in found]}


@router.post("/v1/index/{name}/documents")
async def add(name: str, body: NewDocuments, service: TheService, owner: Owner) -> dict[str, Any]:
    """Adds documents to an index, which is made if need be; on disk when this answers."""
    given = [GivenDocument(one.source, one.text, one.metadata) for one in body.documents]
    async with service.admitted(owner):
        chunks = await service.in_thread(_indexes(service).add, owner, name, given)
    return {"object": "index.added", "id": name, "documents": len(given), "chunks": chunks}


@router.post("/v1/index/{name}/delete")
async def remove(name: str, body: Sources, service: TheService, owner: Owner) -> dict[str, Any]:
    """Deletes documents by their source; unknown ones are no error."""

    def work() -> int:
        with _indexes(service).writing(owner, name) as index:
            return index.delete(sources=body.sources).removed

    return {"object": "index.deleted", "id": name, "chunks": await service.in_thread(work)}


@router.delete("/v1/index/{name}")
async def delete(name: str, service: TheService, owner: Owner) -> dict[str, Any]:
    """Deletes a whole index."""
    await service.in_thread(_indexes(service).delete, owner, name)
    return {"object": "index.deleted", "id": name, "deleted": True}


@router.post("/v1/index/{name}/search")
async def search(name: str, body: SearchBody, service: TheService, owner: Owner) -> dict[str, Any]:
    """The best chunks for a query, with where they stand and why they were found."""

    def work() -> list[dict[str, Any]]:
        with _indexes(service).opened(owner, name) as index, span(RETRIEVAL, name, {TOP_K: body.k}):
            return [hit.to_dict() for hit in index.search(body.query, body.k, mode=body.mode, where=body.where)]

    async with service.admitted(owner):
        return {"object": "list", "data": await service.in_thread(work)}


def _indexes(service: Service) -> Indexes:
    if service.indexes is None:
        raise Problem(501, "this server takes no documents; start it with --indexes FOLDER", code="no_indexes")
    return service.indexes
