"""Small collections: every document is scored by its int8 vectors. No index, nothing to tune, nothing missed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ctxkit.protocols import Vectors
from ctxkit.retrieval.multivector import codec as coding
from ctxkit.retrieval.multivector.ranked import Ranked, top
from ctxkit_kernels import ByteRows, Kernels


@dataclass(frozen=True)
class ExactScan:
    """MaxSim (ColBERT, arXiv 2004.12832) over all allowed documents, by int8 vectors with a unit for each token."""

    dims: int
    rows: ByteRows

    @classmethod
    def build(cls, vectors: Vectors) -> ExactScan:
        offsets = np.ascontiguousarray(vectors.offsets, np.int64)
        return cls(vectors.values.shape[1], ByteRows(offsets, *coding.byte_rows(vectors.values)))

    def __len__(self) -> int:
        return len(self.rows.offsets) - 1

    @property
    def counts(self) -> np.ndarray:
        """int64 [documents], tokens of each."""
        return np.diff(self.rows.offsets)

    @cached_property
    def with_tokens(self) -> np.ndarray | None:
        """bool [documents], which have tokens; None where all have."""
        some = self.counts > 0
        return None if some.all() else some

    def rank(
        self, kernels: Kernels, query: np.ndarray, k: int, mask: np.ndarray | None, *, evidence: bool = True
    ) -> Ranked:
        """The best k of the allowed documents."""
        documents = np.arange(len(self), dtype=np.int32) if mask is None else np.flatnonzero(mask).astype(np.int32)
        rounded, unit = coding.to_int8(query)
        scores, _ = kernels.scan(self.rows, rounded, unit, None if mask is None else documents)
        best = top(documents, scores, k)
        if not evidence:
            return best
        winners: Any = kernels.scan(self.rows, rounded, unit, best.documents, evidence=True)[1]
        return Ranked(best.documents, best.scores, winners)

    def decoded(self, document: int) -> np.ndarray:
        """float32 [tokens, dims]: what a search takes the document's vectors for."""
        own = slice(*self.rows.offsets[document : document + 2])
        return self.rows.rows[own, : self.dims] * self.rows.scales[own, None]

    def to_arrays(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        rows = self.rows
        return {"dims": self.dims}, {"offsets": rows.offsets, "rows": rows.rows, "scales": rows.scales}

    @classmethod
    def from_arrays(cls, facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> ExactScan:
        return cls(facts["dims"], ByteRows(arrays["offsets"], arrays["rows"], arrays["scales"]))
