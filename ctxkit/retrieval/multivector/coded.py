"""The index of a large collection: centroids, postings of unique documents, residual codes. Only arrays."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ctxkit.protocols import Vectors
from ctxkit.retrieval.multivector import codec as coding
from ctxkit.retrieval.multivector.clustering import cluster, default_centroids
from ctxkit.retrieval.multivector.options import BuildOptions
from ctxkit_kernels import ByteRows, Codec, CodedTokens, Kernels, Postings, Scratch

_CODEC = ("steepness", "sizes", "cuts", "levels")
_POSTINGS = ("offsets", "documents")
_TOKENS = ("offsets", "codes", "residuals", "norms")


@dataclass(frozen=True)
class CodedIndex:
    """All arrays of one collection; immutable, and safe to search from many threads.

    centroids: int8 [centroids, padded dims]. sizes: int32 [centroids], tokens of each.
    rows: the same tokens as int8, where they are kept for refinement.
    """

    dims: int
    centroids: np.ndarray
    sizes: np.ndarray
    codec: Codec
    postings: Postings
    tokens: CodedTokens
    rows: ByteRows | None = None
    _local: threading.local = field(default_factory=threading.local, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.tokens.offsets) - 1

    @property
    def offsets(self) -> np.ndarray:
        """int64 [documents + 1], where the tokens of each begin."""
        return self.tokens.offsets

    @classmethod
    def build(
        cls, kernels: Kernels, vectors: Vectors, token_ids: np.ndarray | None, options: BuildOptions
    ) -> CodedIndex:
        values, offsets = vectors.values, np.ascontiguousarray(vectors.offsets, np.int64)
        clusters = cluster(values, token_ids, options.centroids or default_centroids(len(values)), options.seed)
        rounded, unit = coding.to_int8(clusters.rows)
        centroids = coding.padded(rounded)
        codes = clusters.codes.astype(np.uint16 if len(centroids) <= 1 << 16 else np.uint32)
        codec = coding.train(values, codes, centroids, unit, options.bits, options.seed)
        residuals, norms = coding.encode(kernels, values, codes, centroids, codec)
        return cls(
            values.shape[1],
            centroids,
            np.bincount(codes, minlength=len(centroids)).astype(np.int32),
            codec,
            postings_of(codes, offsets, len(centroids)),
            CodedTokens(offsets, codes, residuals, norms, codec.levels),
            ByteRows(offsets, *coding.byte_rows(values)) if options.refine else None,
        )

    def scratch(self) -> Scratch:
        """The accumulator of this thread."""
        if not hasattr(self._local, "scratch"):
            self._local.scratch = Scratch(len(self))
        return self._local.scratch

    @cached_property
    def longest_centroid(self) -> float:
        """Length of the longest centroid, in units of int8."""
        squares = (self.centroids.astype(np.int32) ** 2).sum(axis=1)
        return float(np.sqrt(squares.max(initial=0)))

    def decoded(self, document: int) -> np.ndarray:
        """float32 [tokens, dims]: what a search takes the document's vectors for."""
        own = slice(*self.tokens.offsets[document : document + 2])
        tokens = self.tokens
        return coding.decode(self.codec, self.centroids, tokens.codes[own], tokens.residuals[own], tokens.norms[own])

    def to_arrays(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What `from_arrays` needs: JSON values, and arrays by name."""
        arrays = {name: getattr(self, name) for name in ("centroids", "sizes")}
        arrays |= {f"codec_{name}": getattr(self.codec, name) for name in _CODEC}
        arrays |= {f"postings_{name}": getattr(self.postings, name) for name in _POSTINGS}
        arrays |= {f"tokens_{name}": getattr(self.tokens, name) for name in _TOKENS}
        if self.rows is not None:
            arrays |= {"rows": self.rows.rows, "scales": self.rows.scales}
        return {"dims": self.dims, "unit": self.codec.unit}, arrays

    @classmethod
    def from_arrays(cls, facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> CodedIndex:
        codec = Codec(facts["unit"], *(arrays[f"codec_{name}"] for name in _CODEC))
        postings = Postings(*(arrays[f"postings_{name}"] for name in _POSTINGS))
        tokens = CodedTokens(**{name: arrays[f"tokens_{name}"] for name in _TOKENS}, levels=codec.levels)
        rows = ByteRows(tokens.offsets, arrays["rows"], arrays["scales"]) if "rows" in arrays else None
        return cls(facts["dims"], arrays["centroids"], arrays["sizes"], codec, postings, tokens, rows)


def postings_of(codes: np.ndarray, offsets: np.ndarray, centroids: int) -> Postings:
    """The documents of each centroid, ascending and each once."""
    documents = len(offsets) - 1
    owners = np.repeat(np.arange(documents, dtype=np.int64), np.diff(offsets))
    pairs = np.unique(codes.astype(np.int64) * max(documents, 1) + owners)
    starts = np.searchsorted(pairs, np.arange(centroids + 1, dtype=np.int64) * max(documents, 1))
    return Postings(starts.astype(np.int64), (pairs % max(documents, 1)).astype(np.int32))
