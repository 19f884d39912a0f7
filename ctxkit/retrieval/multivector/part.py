"""Some documents of a collection, coded by its codebook: postings, residual codes and, where kept, int8 rows."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ctxkit.protocols import Vectors
from ctxkit.retrieval.multivector import codec as coding
from ctxkit.retrieval.multivector.codebook import Codebook
from ctxkit_kernels import ByteRows, CodedTokens, Kernels, Postings, Scratch

_TOKENS = ("offsets", "codes", "residuals", "norms")


@dataclass(frozen=True)
class CodedPart:
    """Documents 0 to len - 1; immutable, and safe to search from many threads.

    sizes: int32 [centroids], tokens at each. rows: the same tokens as int8, where they are kept for refinement.
    """

    tokens: CodedTokens
    postings: Postings
    sizes: np.ndarray
    rows: ByteRows | None = None
    _local: threading.local = field(default_factory=threading.local, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.tokens.offsets) - 1

    @property
    def count(self) -> int:
        """Tokens."""
        return len(self.tokens.codes)

    @property
    def counts(self) -> np.ndarray:
        """int64 [documents], tokens of each."""
        return np.diff(self.tokens.offsets)

    @classmethod
    def encode(
        cls, kernels: Kernels, codebook: Codebook, vectors: Vectors, codes: np.ndarray, *, keep_rows: bool
    ) -> CodedPart:
        """The part of these documents. codes: the centroid of each token, as `Codebook` gives them."""
        offsets = np.ascontiguousarray(vectors.offsets, np.int64)
        residuals, norms = coding.encode(kernels, vectors.values, codes, codebook.centroids, codebook.codec)
        tokens = CodedTokens(offsets, codes, residuals, norms, codebook.codec.levels)
        return cls._of(codebook, tokens, ByteRows(offsets, *coding.byte_rows(vectors.values)) if keep_rows else None)

    @classmethod
    def joined(cls, codebook: Codebook, parts: Sequence[CodedPart], kept: Sequence[np.ndarray]) -> CodedPart:
        """The kept documents of several parts, in order, as one. kept: int64 document numbers for each part."""
        places = [token_places(part.tokens.offsets, own) for part, own in zip(parts, kept, strict=True)]
        counts = [part.counts[own] for part, own in zip(parts, kept, strict=True)]
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)

        def gathered(arrays: Sequence[np.ndarray]) -> np.ndarray:
            return np.concatenate([array[own] for array, own in zip(arrays, places, strict=True)])

        fields = {name: gathered([getattr(part.tokens, name) for part in parts]) for name in _TOKENS[1:]}
        rows = None
        kept_rows = [part.rows for part in parts if part.rows is not None]
        if parts and len(kept_rows) == len(parts):
            rows = ByteRows(offsets, gathered([r.rows for r in kept_rows]), gathered([r.scales for r in kept_rows]))
        return cls._of(codebook, CodedTokens(offsets, **fields, levels=codebook.codec.levels), rows)

    @classmethod
    def _of(cls, codebook: Codebook, tokens: CodedTokens, rows: ByteRows | None) -> CodedPart:
        centroids = len(codebook.centroids)
        sizes = np.bincount(tokens.codes, minlength=centroids).astype(np.int32)
        return cls(tokens, postings_of(tokens.codes, tokens.offsets, centroids), sizes, rows)

    def scratch(self) -> Scratch:
        """The accumulator of this thread."""
        if not hasattr(self._local, "scratch"):
            self._local.scratch = Scratch(len(self))
        return self._local.scratch

    @cached_property
    def with_tokens(self) -> np.ndarray | None:
        """bool [documents], which have tokens; None where all have."""
        some = self.counts > 0
        return None if some.all() else some

    def values(self, codebook: Codebook, documents: np.ndarray) -> np.ndarray:
        """float32 [their tokens, dims]: the vectors of documents, one after the other, as well as they are known."""
        own = token_places(self.tokens.offsets, documents)
        if self.rows is not None:
            return self.rows.rows[own, : codebook.dims] * self.rows.scales[own, None]
        return self.decoded(codebook, own)

    def decoded(self, codebook: Codebook, own: np.ndarray | slice) -> np.ndarray:
        """float32 [tokens, dims]: what a search by codes takes these tokens for."""
        tokens = self.tokens
        return coding.decode(
            codebook.codec, codebook.centroids, tokens.codes[own], tokens.residuals[own], tokens.norms[own]
        )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What `from_arrays` needs."""
        arrays = {f"tokens_{name}": getattr(self.tokens, name) for name in _TOKENS}
        arrays |= {"postings_offsets": self.postings.offsets, "postings_documents": self.postings.documents}
        if self.rows is not None:
            arrays |= {"rows": self.rows.rows, "scales": self.rows.scales}
        return {**arrays, "sizes": self.sizes}

    @classmethod
    def from_arrays(cls, codebook: Codebook, arrays: dict[str, Any]) -> CodedPart:
        tokens = CodedTokens(**{name: arrays[f"tokens_{name}"] for name in _TOKENS}, levels=codebook.codec.levels)
        postings = Postings(arrays["postings_offsets"], arrays["postings_documents"])
        rows = ByteRows(tokens.offsets, arrays["rows"], arrays["scales"]) if "rows" in arrays else None
        return cls(tokens, postings, arrays["sizes"], rows)


def postings_of(codes: np.ndarray, offsets: np.ndarray, centroids: int) -> Postings:
    """The documents of each centroid, ascending and each once."""
    documents = len(offsets) - 1
    owners = np.repeat(np.arange(documents, dtype=np.int64), np.diff(offsets))
    pairs = np.unique(codes.astype(np.int64) * max(documents, 1) + owners)
    starts = np.searchsorted(pairs, np.arange(centroids + 1, dtype=np.int64) * max(documents, 1))
    return Postings(starts.astype(np.int64), (pairs % max(documents, 1)).astype(np.int32))


def token_places(offsets: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """int64: the tokens of these documents, one document after the other."""
    counts = np.diff(offsets)[documents]
    starts = np.cumsum(counts) - counts
    return np.arange(counts.sum()) + np.repeat(offsets[:-1][documents] - starts, counts)
