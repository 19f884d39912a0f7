"""A retriever of LangChain over an index of ctxkit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field

from ctxkit.retrieval import Hit
from ctxkit_connectors.shared import hit_metadata


class CtxkitRetriever(BaseRetriever):
    """The passages of an index that answer a query, as documents, best first.

    index: an `Index` or whatever else is `Searchable` (LanceIndex, QdrantIndex).
    k, mode, where, sources: as of `Index.search`. Each can be given with a query too: `retriever.invoke(query, k=3)`.

    A document's metadata are the chunk's own, with source, title, location, rank, relevance and score.
    What the index raises comes through.
    """

    index: Any
    k: int = Field(default=10, ge=1)
    mode: str = "hybrid"
    where: Any = None
    sources: Sequence[str] | None = None

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **asked: Any
    ) -> list[Document]:
        return self._search(query, **asked)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **asked: Any
    ) -> list[Document]:
        return await asyncio.to_thread(self._search, query, **asked)  # an index may be shared by threads

    def _search(self, query: str, k: int | None = None, **asked: Any) -> list[Document]:
        options = {"mode": self.mode, "where": self.where, "sources": self.sources, **asked}
        return [document_of(hit) for hit in self.index.search(query, self.k if k is None else k, **options)]


def document_of(hit: Hit) -> Document:
    """A hit as LangChain's document."""
    return Document(hit.chunk.text, id=hit.chunk.id, metadata=hit_metadata(hit))
