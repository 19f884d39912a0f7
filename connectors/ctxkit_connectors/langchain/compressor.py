"""A document compressor of LangChain that spends one budget on all retrieved documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, model_validator

from ctxkit.compression import TextCompressor, compress
from ctxkit.pipeline import best_offline
from ctxkit.protocols import Counter
from ctxkit.tokens import EstimatingCounter


class DocumentCompressor(BaseDocumentCompressor):
    """Gives the documents of a retriever in at most `max_tokens` tokens together, or in the share `rate`.

    The budget goes to what answers the query, wherever it stands. What is left of a document are slices of it, in
    order; its metadata and id stay. A document for which there is no room is left out. Put it behind a retriever with
    `ContextualCompressionRetriever`, or call `compress_documents(documents, query)`.

    max_tokens, rate: give one. compressor: a method of `ctxkit.compression`; by default sentences by BM25 and by the
    packaged encoder, which needs the extra "retrieval". counter: the target model's; without one
    tokens are an upper bound for all common models.
    """

    max_tokens: int | None = Field(default=None, ge=0)
    rate: float | None = Field(default=None, ge=0, le=1)
    compressor: TextCompressor = Field(default_factory=best_offline)
    counter: Any = None

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", frozen=True)

    @model_validator(mode="after")
    def _one_limit(self) -> DocumentCompressor:
        if (self.max_tokens is None) == (self.rate is None):
            raise ValueError("give either `max_tokens` or `rate`")
        return self

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The documents, shorter, in their order. callbacks: not used, no model of LangChain is asked."""
        counter: Counter = self.counter or EstimatingCounter()
        made = compress(
            [document.page_content for document in documents],
            self.compressor,
            tokens=self.max_tokens,
            rate=self.rate,
            question=query,
            counter=counter,
        )
        shortened = zip(documents, made.texts, strict=True)
        return [document.model_copy(update={"page_content": text}) for document, text in shortened if text]
