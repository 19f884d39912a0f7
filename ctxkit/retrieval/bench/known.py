"""An encoder that has done its work before the clock starts."""

from __future__ import annotations

from collections.abc import Sequence

from ctxkit.protocols import Encoder, Vectors
from ctxkit.retrieval.encoders.token_vectors import Rows, joined, rows_of


class KnownVectors:
    """Gives what `encoder` gives for texts that it was made to learn; those it keeps in memory. Others are encoded."""

    def __init__(self, encoder: Encoder) -> None:
        self.wrapped = encoder
        self.name, self.fingerprint = encoder.name, encoder.fingerprint
        self.dims, self.multi_vector = encoder.dims, encoder.multi_vector
        self._documents: dict[str, Rows] = {}
        self._queries: dict[str, Rows] = {}

    def learn_documents(self, texts: Sequence[str], *, progress: bool = False) -> int:
        """How many rows they have."""
        vectors = self.wrapped.encode_documents(texts, progress=progress)
        self._documents.update(zip(texts, rows_of(vectors), strict=True))
        return len(vectors.values)

    def learn_queries(self, texts: Sequence[str]) -> None:
        for text in texts:  # one at a time, as they come
            self._queries[text] = rows_of(self.wrapped.encode_queries([text]))[0]

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        return self.wrapped.count_batch(texts)

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        """Vectors of `texts`."""
        if any(text not in self._documents for text in texts):
            self.learn_documents(texts, progress=progress)
        return joined([self._documents[text] for text in texts], self.dims)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of `texts`."""
        if any(text not in self._queries for text in texts):
            self.learn_queries(texts)
        return joined([self._queries[text] for text in texts], self.dims)
