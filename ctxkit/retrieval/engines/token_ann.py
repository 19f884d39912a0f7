"""Late interaction over any index of token vectors: retrieve tokens, impute what is missing, score the best exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ctxkit.errors import StoreError
from ctxkit.protocols import Vectors
from ctxkit.retrieval.engines import checks, saved
from ctxkit.retrieval.engines.base import DECIMALS
from ctxkit.retrieval.engines.documents import Documents
from ctxkit.retrieval.engines.imputation import imputed
from ctxkit.retrieval.engines.tokens import TokenIndex
from ctxkit.retrieval.fusion import Run, best
from ctxkit.retrieval.growing import Growing
from ctxkit.retrieval.multivector import codec
from ctxkit_kernels import ByteRows, Kernels, best_kernels

_DIRECT_SHARE = 0.01  # filters that leave less of the collection skip the index
_ROUNDS = 3
_MORE_TIMES = 4


@dataclass(frozen=True)
class TokenAnnOptions:
    """How far a search looks.

    depth_tokens: rows retrieved for each query token.
    rerank_documents: how many of the documents that own them are scored by all their vectors; never fewer than are
        asked for.
    """

    depth_tokens: int = 500
    rerank_documents: int = 100

    def __post_init__(self) -> None:
        for name in ("depth_tokens", "rerank_documents"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)!r}")


class TokenAnnEngine:
    """MaxSim (ColBERT, arXiv 2004.12832) of the documents that XTR's imputation (arXiv 2304.01982) puts first.

    Every query token retrieves its nearest rows from the index. A document's first score sums the best similarities of
    its retrieved rows, imputed where it has none. The best `rerank_documents` are scored exactly by int8 rows, which
    the engine keeps: dims + 4 bytes per token beside the index. Recall and speed: benchmarks/LOG.md, "faiss IVF-PQ +
    XTR + exact rerank"; the multi-vector engine of this package is faster there.

    Few allowed documents, and searches whose tokens lead to too few, are scored directly. A document without rows is
    never found. Many threads may search at once where the index lets them; `add` must have the engine for itself.

    index: empty, or (see `restore`) holding the rows of earlier `add`s.
    """

    exact = False

    def __init__(
        self,
        index: TokenIndex,
        options: TokenAnnOptions = TokenAnnOptions(),  # noqa: B008 - frozen
        kernels: Kernels | None = None,
    ) -> None:
        self._index = index
        self._options = options
        self._kernels = kernels or best_kernels()
        self._documents = Documents()
        self._bytes: Growing | None = None  # int8 [tokens, padded dims]
        self._scales = Growing(np.float32)

    def __len__(self) -> int:
        return len(self._documents)

    def __repr__(self) -> str:
        return f"TokenAnnEngine({len(self)} documents, {self._documents.rows} tokens, {self._kernels.name})"

    def add(self, vectors: Vectors) -> None:
        """As `Engine.add`. Raises ValueError, and adds nothing, where shapes do not fit or a value is not finite."""
        checked = checks.vectors_of(vectors, self._documents.dims)
        if len(checked.values):
            self._index.add(checked.values)  # first: should it refuse, nothing has changed
            self._keep(*codec.byte_rows(checked.values))
        self._documents.add(checked)

    def search(self, query: np.ndarray, depth: int, allowed: np.ndarray | None = None) -> Run:
        """As `Engine.search`. query: any number of rows. Raises ValueError where an argument is malformed."""
        query = checks.query_of(query, self._documents.dims)
        allowed = checks.allowed_of(allowed, len(self))
        wanted = min(checks.depth_of(depth), self._documents.count(allowed))
        if not wanted:
            return Run.empty()
        chosen = self._candidates(query, wanted, allowed)
        scores = self._scored(query, chosen)
        return best(chosen, np.round(scores.astype(np.float64), DECIMALS), depth)

    def state(self) -> np.ndarray:
        """uint8 [bytes]: the int8 rows and whose they are. The index is not in it; it saves itself."""
        arrays = {"offsets": self._documents.offsets, "scales": self._scales.values}
        if self._bytes is not None:
            arrays["bytes"] = self._bytes.values
        return saved.pack(type(self).__name__, {"dims": self._documents.dims}, arrays)

    @classmethod
    def restore(
        cls,
        state: np.ndarray | bytes,
        index: TokenIndex,
        options: TokenAnnOptions = TokenAnnOptions(),  # noqa: B008 - frozen
        kernels: Kernels | None = None,
    ) -> TokenAnnEngine:
        """The engine that `state` was asked of. index: with the rows that it had then.

        Raises StoreError where the bytes are damaged, IndexMismatch where another engine or format wrote them.
        """
        facts, arrays = saved.unpack(state, cls.__name__)
        engine = cls(index, options, kernels)
        engine._documents = Documents(facts["dims"], arrays["offsets"])
        if "bytes" in arrays:
            engine._keep(arrays["bytes"], arrays["scales"])
        if len(engine._scales) != engine._documents.rows:
            raise StoreError("the saved engine's rows and documents do not agree. Build the engine anew")
        return engine

    def _keep(self, rows: np.ndarray, scales: np.ndarray) -> None:
        if self._bytes is None:
            self._bytes = Growing(np.int8, rows.shape[1])
        self._bytes.extend(rows)
        self._scales.extend(scales)

    def _candidates(self, query: np.ndarray, wanted: int, allowed: np.ndarray | None) -> np.ndarray:
        """int64 documents to score exactly, `wanted` or more."""
        most = max(wanted, self._options.rerank_documents)
        if not len(query) or self._documents.count(allowed) <= max(most, _DIRECT_SHARE * len(self)):
            return self._documents.with_rows(allowed)
        for documents, scores in self._retrieved(query, allowed):
            if len(documents) >= wanted:
                return best(documents, scores, most).positions
        return self._documents.with_rows(allowed)

    def _retrieved(self, query: np.ndarray, allowed: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Documents and imputed scores, from more tokens each time."""
        mask = self._documents.rows_allowed(allowed)
        tokens = self._documents.rows if mask is None else int(np.count_nonzero(mask))
        for more in range(_ROUNDS):
            depth = min(tokens, self._options.depth_tokens * _MORE_TIMES**more)
            similar, rows = self._index.search(query, depth, mask)
            yield imputed(similar, np.where(rows >= 0, self._documents.of(rows), -1))

    def _scored(self, query: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """float32 MaxSim of `documents` by their int8 rows."""
        if self._bytes is None or not len(query):
            return np.zeros(len(documents), np.float32)
        rows = ByteRows(self._documents.offsets, self._bytes.values, self._scales.values)
        rounded, unit = codec.to_int8(query)
        return self._kernels.scan(rows, rounded, unit, documents.astype(np.int32))[0]
