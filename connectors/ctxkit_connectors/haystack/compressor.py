"""A component that spends one budget on all retrieved documents."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict

from ctxkit.compression import TextCompressor, compress
from ctxkit.pipeline import compressor_named
from ctxkit.protocols import Counter
from ctxkit_connectors.haystack.counting import counter_of, saved


@component
class CtxkitDocumentCompressor:
    """Gives documents in at most `max_tokens` tokens together, or in the share `rate`; stands where a ranker would.

    The budget goes to what answers the query, wherever it stands. What is left of a document are slices of it, in
    order; id, meta and score stay. A document for which there is no room is left out, one without text stays.

    max_tokens, rate: give one. top_k: how many of the documents, in the order given, are looked at; None: all.
    method: a name of `ctxkit compress --method`; "auto" chooses sentences by BM25 and by the packaged encoder, which
        needs the extra "retrieval".
    model: what the tokens are counted for, a name of `ctxkit models list` or a folder; None: an upper bound for all
        common models. counter: an object instead, which cannot be saved with the pipeline.
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        rate: float | None = None,
        top_k: int | None = None,
        method: str = "auto",
        model: str | None = None,
        counter: Counter | None = None,
    ) -> None:
        if (max_tokens is None) == (rate is None):
            raise ValueError(f"give either `max_tokens` or `rate`, got {max_tokens!r} and {rate!r}")
        self.max_tokens = max_tokens
        self.rate = rate
        self.top_k = top_k
        self.method = method
        self.model = model
        self.counter = counter
        self._made: tuple[TextCompressor, Counter] | None = None

    def warm_up(self) -> None:
        self._ready()

    def _ready(self) -> tuple[TextCompressor, Counter]:
        if self._made is None:
            self._made = compressor_named(self.method), self.counter or counter_of(self.model)
        return self._made

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, Any]:
        compressor, counter = self._ready()
        most = self.top_k if top_k is None else top_k
        given = documents if most is None else documents[:most]
        texts = [document.content or "" for document in given]
        made = compress(texts, compressor, tokens=self.max_tokens, rate=self.rate, question=query, counter=counter)
        shortened = zip(given, made.texts, strict=True)
        return {"documents": [_with_text(one, text) for one, text in shortened if text or not one.content]}

    @component.output_types(documents=list[Document])
    async def run_async(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, Any]:
        return await asyncio.to_thread(self.run, query, documents, top_k)

    def to_dict(self) -> dict[str, Any]:
        saved(self.counter)
        limits = {"max_tokens": self.max_tokens, "rate": self.rate, "top_k": self.top_k}
        return default_to_dict(self, **limits, method=self.method, model=self.model)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CtxkitDocumentCompressor:
        return default_from_dict(cls, data)


def _with_text(document: Document, text: str) -> Document:
    return document if (document.content or "") == text else replace(document, content=text)
