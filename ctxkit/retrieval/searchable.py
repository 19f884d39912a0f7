"""What ctxkit asks of an index, so that others than `Index` serve: the collections of vector databases, for one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Protocol

from ctxkit.documents.chunk import Chunk
from ctxkit.protocols import Encoder
from ctxkit.retrieval.filters import Where
from ctxkit.retrieval.hit import Hit
from ctxkit.retrieval.search import Mode


class Searchable(Protocol):
    """Enough for `Pipeline`, `retrieve_to_budget` and `ClusteredRag.search`. The members are those of `Index`."""

    @property
    def path(self) -> str | os.PathLike[str]:
        """Where it is, for messages; a folder of that name is none of the documents that `ingest` reads."""
        ...

    @property
    def encoder(self) -> Encoder: ...

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        mode: Mode = "hybrid",
        where: Where | None = None,
        sources: Sequence[str] | None = None,
    ) -> list[Hit]: ...


class Writable(Searchable, Protocol):
    """Enough for `ingest` as well. What a write returns is its own affair."""

    def sources(self) -> dict[str, str]: ...

    def replace_sources(
        self, sources: Iterable[tuple[str, str, Iterable[Chunk]]], *, progress: bool = False
    ) -> object: ...

    def delete(self, *, sources: Iterable[str] | None = None, ids: Iterable[str] | None = None) -> object: ...
