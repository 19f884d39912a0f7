"""A retriever of Haystack over an index of ctxkit."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import asyncio
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict

from ctxkit.retrieval import Hit, Index
from ctxkit.retrieval.searchable import Searchable
from ctxkit_connectors.shared import hit_metadata


@component
class CtxkitRetriever:
    """The passages of an index that answer a query, as documents scored by their relevance, best first.

    index: the folder of an index, opened at `warm_up`; or an `Index`, or whatever else is `Searchable`, which is saved
        by its path and not closed here.
    top_k, mode, sources: as of `Index.search`.
    """

    def __init__(
        self, index: str | Searchable, top_k: int = 10, mode: str = "hybrid", sources: list[str] | None = None
    ) -> None:
        self.index = index
        self.top_k = top_k
        self.mode = mode
        self.sources = sources
        self._opened: Any = None if isinstance(index, str) else index

    def warm_up(self) -> None:
        if self._opened is None:
            self._opened = Index.open(str(self.index))

    def close(self) -> None:
        """Close the index, where it was opened here. The next run opens it again."""
        if isinstance(self.index, str) and self._opened is not None:
            self._opened.close()
            self._opened = None

    @component.output_types(documents=list[Document])
    def run(self, query: str, top_k: int | None = None, where: dict[str, Any] | None = None) -> dict[str, Any]:
        """where: conditions on metadata, as `Index.search` takes them."""
        self.warm_up()
        k = self.top_k if top_k is None else top_k
        hits = self._opened.search(query, k, mode=self.mode, where=where, sources=self.sources)
        return {"documents": [document_of(hit) for hit in hits]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, top_k: int | None = None, where: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        return await asyncio.to_thread(self.run, query, top_k, where)

    def to_dict(self) -> dict[str, Any]:
        path = self.index if isinstance(self.index, str) else str(self.index.path)
        return default_to_dict(self, index=path, top_k=self.top_k, mode=self.mode, sources=self.sources)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CtxkitRetriever:
        return default_from_dict(cls, data)


def document_of(hit: Hit) -> Document:
    """A hit as Haystack's document."""
    return Document(id=hit.chunk.id, content=hit.chunk.text, meta=hit_metadata(hit), score=hit.relevance)
