"""The multi-vector engine: built from token vectors, searched by late interaction, saved and mapped back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ctxkit.errors import IndexMismatch
from ctxkit.protocols import Vectors
from ctxkit.retrieval.multivector import stages
from ctxkit.retrieval.multivector.coded import CodedIndex
from ctxkit.retrieval.multivector.exact import ExactScan
from ctxkit.retrieval.multivector.options import BuildOptions, Mode, SearchOptions
from ctxkit.retrieval.storage import array_file
from ctxkit_kernels import Kernels, best_kernels

_FORMAT = 2
_KINDS: dict[str, type[CodedIndex] | type[ExactScan]] = {"coded": CodedIndex, "exact": ExactScan}


class Found(NamedTuple):
    """What a search found, best first.

    ids: int64 [found], numbers of documents as they were given to `build`.
    scores: float32 [found], MaxSim: the sum over query tokens of the best inner product with a document token.
    evidence: int64 [found, query tokens], which token of the document that was, counted from its first.
    """

    ids: np.ndarray
    scores: np.ndarray
    evidence: np.ndarray


class MultiVectorEngine:
    """Late interaction (ColBERT, arXiv 2004.12832) on one thread of a CPU.

    Up to `BuildOptions.exact_below_tokens` tokens every search scores every allowed document by int8 vectors. Beyond,
    tokens are coded in about 73 bytes (128 dims, 4 bits) and searched as `stages` says. Immutable; safe to search from
    many threads. Scores are within the codec's error of those of the float32 vectors.
    """

    def __init__(self, part: CodedIndex | ExactScan, kernels: Kernels | None = None) -> None:
        self._part = part
        self._kernels = kernels or best_kernels()

    @classmethod
    def build(
        cls,
        vectors: Vectors,
        token_ids: np.ndarray | None = None,
        options: BuildOptions = BuildOptions(),  # noqa: B008 - frozen
        kernels: Kernels | None = None,
    ) -> MultiVectorEngine:
        """The engine for documents 0 to len(vectors) - 1.

        token_ids: int [rows], the vocabulary id of each row: clusters are then better and cheaper (arXiv 2604.28142).
        Raises ValueError where shapes do not fit or a value is not finite.
        """
        kernels = kernels or best_kernels()
        vectors = _checked(vectors, token_ids)
        if len(vectors.values) <= options.exact_below_tokens or not len(vectors.values):
            return cls(ExactScan.build(vectors), kernels)
        return cls(CodedIndex.build(kernels, vectors, token_ids, options), kernels)

    def __len__(self) -> int:
        """Documents."""
        return len(self._part)

    def __repr__(self) -> str:
        kind = "exact scan" if self.exact else "coded"
        return f"MultiVectorEngine({len(self)} documents, {self._part.dims} dims, {kind}, {self._kernels.name})"

    @property
    def dims(self) -> int:
        return self._part.dims

    @property
    def exact(self) -> bool:
        """Whether a search scores every allowed document."""
        return isinstance(self._part, ExactScan)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self._part.to_arrays()[1].values())

    def decoded(self, document: int) -> np.ndarray:
        """float32 [tokens, dims]: what a search takes the document's vectors for."""
        return self._part.decoded(document)

    def search(
        self,
        query: np.ndarray,
        k: int = 10,
        mode: Mode = "maxsim",
        mask: np.ndarray | Sequence[bool] | None = None,
        *,
        nprobe: int | None = None,
        t_prime: int | None = None,
        coarse: int | None = None,
        rerank: int | None = None,
        refine: int | None = None,
        options: SearchOptions = SearchOptions(),  # noqa: B008 - frozen
        evidence: bool = True,
    ) -> Found:
        """The k best documents, fewer only where fewer are allowed. A document without tokens is never found.

        query: float32 [query tokens, dims], any number of tokens.
        mode: "maxsim", or "xtr" (arXiv 2304.01982): the first stage's scores, with what is missing imputed.
        mask: bool [documents], True where a document is allowed. Exact: nothing else is ever returned.
        evidence: whether to say which token answers which; where not, the result's evidence has no columns.
        nprobe, t_prime, coarse, rerank, refine: the fields of SearchOptions, in its order, for this search.
        Raises ValueError where the query, the mask or a number is malformed.
        """
        query = self._checked_query(query)
        if k < 1:
            raise ValueError(f"`k` must be at least 1, got {k!r}")
        if mode not in ("maxsim", "xtr"):
            raise ValueError(f'`mode` must be "maxsim" or "xtr", got {mode!r}')
        allowed = self._checked_mask(mask)
        if isinstance(self._part, ExactScan):
            ranked = self._part.rank(self._kernels, query, k, allowed, evidence=evidence)
        else:
            chosen = _changed(options, nprobe, t_prime, coarse, rerank, refine)
            ranked = stages.rank(self._part, self._kernels, query, k, mode, allowed, chosen, evidence=evidence)
        winners = np.empty((len(ranked.documents), 0), np.int64) if ranked.evidence is None else ranked.evidence
        return Found(ranked.documents.astype(np.int64), ranked.scores, winners)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes one file, whole or not at all. Raises StoreError where that fails."""
        kind = next(name for name, cls in _KINDS.items() if isinstance(self._part, cls))
        facts, arrays = self._part.to_arrays()
        array_file.write(Path(path), arrays, {**facts, "kind": kind, "format": _FORMAT})

    @classmethod
    def load(
        cls, path: str | PathLike[str], *, verify: bool = True, kernels: Kernels | None = None
    ) -> MultiVectorEngine:
        """The engine that `save` wrote, memory-mapped.

        verify: compare the CRC32 of the file, which reads it once. Raises StoreError, which names a file that is
        missing or damaged, and IndexMismatch for another format.
        """
        facts, arrays = array_file.read(Path(path), verify=verify)
        if facts.get("format") != _FORMAT or facts.get("kind") not in _KINDS:
            raise IndexMismatch(
                f"{path}: format {facts.get('format')!r}, this version reads {_FORMAT}. Build the engine anew"
            )
        return cls(_KINDS[facts["kind"]].from_arrays(facts, arrays), kernels)

    def _checked_query(self, query: np.ndarray) -> np.ndarray:
        query = np.ascontiguousarray(query, np.float32)
        if query.ndim != 2 or query.shape[1] != self.dims:
            raise ValueError(f"`query` must be [query tokens, {self.dims}], got shape {query.shape!r}")
        if not np.isfinite(query).all():
            raise ValueError("`query` holds NaN or infinity")
        return query

    def _checked_mask(self, mask: np.ndarray | Sequence[bool] | None) -> np.ndarray | None:
        filled = self._part.with_tokens
        if mask is None:
            return filled
        allowed = np.ascontiguousarray(mask)
        if allowed.dtype != bool or allowed.shape != (len(self),):
            raise ValueError(f"`mask` must be bool [{len(self)}], got {allowed.dtype} {allowed.shape!r}")
        return allowed if filled is None else allowed & filled


def _changed(options: SearchOptions, *values: int | None) -> SearchOptions:
    names = ("probes", "t_prime_tokens", "coarse_documents", "rerank_documents", "refine_documents")
    given = {name: value for name, value in zip(names, values, strict=True) if value is not None}
    return replace(options, **given) if given else options


def _checked(vectors: Vectors, token_ids: np.ndarray | None) -> Vectors:
    values = np.ascontiguousarray(vectors.values, np.float32)
    offsets = np.ascontiguousarray(vectors.offsets, np.int64)
    if values.ndim != 2 or not values.shape[1]:
        raise ValueError(f"`vectors.values` must be [rows, dims] with at least one dim, got shape {values.shape!r}")
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 0).any():
        raise ValueError("`vectors.offsets` must rise from 0 to the number of rows")
    if len(offsets) > 2**31:
        raise ValueError(f"one engine holds up to {2**31 - 1} documents, got {len(offsets) - 1}")
    if not np.isfinite(values).all():
        raise ValueError("`vectors.values` holds NaN or infinity")
    if token_ids is not None and np.shape(token_ids) != (len(values),):
        raise ValueError(f"`token_ids` must be [{len(values)}], one per row, got shape {np.shape(token_ids)!r}")
    return Vectors(values, offsets)
