"""/v1/sessions: conversations that the server keeps; and /v1/context/expand."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ctxkit.context.chat import conversation
from ctxkit.server.ascii_json import AsciiJson
from ctxkit.server.labels import unmarked
from ctxkit.server.problems import Problem
from ctxkit.server.routes.dependencies import Owner, TheService
from ctxkit.server.service import Service
from ctxkit.server.sessions.conversations import Conversations

router = APIRouter()


class NewSession(BaseModel):
    """id: a name of the caller's; made up where there is none. messages: what was said already."""

    id: str | None = None
    metadata: dict[str, Any] = {}
    messages: list[dict[str, Any]] = []


class NewMessages(BaseModel):
    """length: refuse with 409 unless the session has so many messages now."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    length: int | None = Field(default=None, ge=0)


class Fork(BaseModel):
    """length: only the first so many messages."""

    length: int | None = Field(default=None, ge=0)


class Expand(BaseModel):
    """ref: as a prompt of the session shows it, a part's id or `id:first-last` for lines."""

    session: str
    ref: str
    model: str | None = None


@router.post("/v1/sessions", status_code=201)
async def create(body: NewSession, service: TheService, owner: Owner) -> dict[str, Any]:
    """A new session."""
    store = _kept(service).store
    _check(body.messages)
    row = await service.in_thread(store.create, owner, body.id, metadata=body.metadata, messages=body.messages)
    return row.to_dict()


@router.get("/v1/sessions", response_class=AsciiJson)
async def listed(service: TheService, owner: Owner) -> dict[str, Any]:
    """The caller's sessions, the one written to last first."""
    rows = await service.in_thread(_kept(service).store.sessions, owner)
    return {"object": "list", "data": [row.to_dict() for row in rows]}


@router.get("/v1/sessions/{session}", response_class=AsciiJson)
async def exported(session: str, service: TheService, owner: Owner) -> dict[str, Any]:
    """A session with all of its messages."""
    store = _kept(service).store
    row = await service.in_thread(store.get, owner, session)
    return {**row.to_dict(), "messages": await service.in_thread(store.messages, owner, session)}


@router.post("/v1/sessions/{session}/messages")
async def append(session: str, body: NewMessages, service: TheService, owner: Owner) -> dict[str, Any]:
    """Appends messages; on disk when this answers."""
    store = _kept(service).store
    _check(body.messages)
    row = await service.in_thread(store.append, owner, session, body.messages, length=body.length)
    return row.to_dict()


@router.post("/v1/sessions/{session}/fork", status_code=201)
async def fork(session: str, body: Fork, service: TheService, owner: Owner) -> dict[str, Any]:
    """Another session with the same messages, for another way on."""
    return (await service.in_thread(_kept(service).store.fork, owner, session, length=body.length)).to_dict()


@router.delete("/v1/sessions/{session}")
async def delete(session: str, service: TheService, owner: Owner) -> dict[str, Any]:
    """Forgets a session, its messages and the originals of what was reduced."""
    await service.in_thread(_kept(service).forget, owner, session)
    return {"id": session, "object": "session.deleted", "deleted": True}


@router.post("/v1/context/expand")
async def expand(body: Expand, service: TheService, owner: Owner) -> dict[str, Any]:
    """The original of what a prompt of a session showed reduced, byte for byte."""
    _, model = service.model(body.model)
    text = await service.in_thread(_kept(service).expand, owner, body.session, body.ref, model.counter)
    return {"ref": body.ref, "text": text}


def _check(messages: list[dict[str, Any]]) -> None:
    """Raises PartError, ValueError for what is no conversation, or has a label that is none."""
    bare, labels = unmarked(messages)
    conversation(bare, labels=labels)


def _kept(service: Service) -> Conversations:
    if service.conversations is None:
        raise Problem(501, "this server keeps no sessions; start it with --store", code="no_sessions")
    return service.conversations
