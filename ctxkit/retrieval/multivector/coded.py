"""The index of a large collection: one codebook, and its documents in one part or several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ctxkit.protocols import Vectors
from ctxkit.retrieval.multivector.codebook import Codebook
from ctxkit.retrieval.multivector.options import BuildOptions
from ctxkit.retrieval.multivector.part import CodedPart
from ctxkit_kernels import Kernels

Result = np.ndarray | None


@dataclass(frozen=True)
class CodedIndex:
    """Documents are numbered through the parts. Immutable; what is added makes another index of the same parts."""

    codebook: Codebook
    parts: tuple[CodedPart, ...]

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def dims(self) -> int:
        return self.codebook.dims

    @property
    def tokens(self) -> int:
        """Tokens of all documents."""
        return sum(part.count for part in self.parts)

    @property
    def counts(self) -> np.ndarray:
        """int64 [documents], tokens of each."""
        return np.concatenate([part.counts for part in self.parts])

    @property
    def refined(self) -> bool:
        """Whether the int8 rows of all documents are kept."""
        return all(part.rows is not None for part in self.parts)

    @cached_property
    def starts(self) -> np.ndarray:
        """int64 [parts + 1], the number of the first document of each."""
        return np.concatenate([[0], np.cumsum([len(part) for part in self.parts])]).astype(np.int64)

    @cached_property
    def sizes(self) -> np.ndarray:
        """int32 [centroids], tokens at each."""
        if len(self.parts) == 1:
            return self.parts[0].sizes
        return np.asarray(np.sum([part.sizes for part in self.parts], axis=0), np.int32)

    @cached_property
    def with_tokens(self) -> np.ndarray | None:
        """bool [documents], which have tokens; None where all have."""
        if all(part.with_tokens is None for part in self.parts):
            return None
        return self.counts > 0

    @classmethod
    def build(
        cls, kernels: Kernels, vectors: Vectors, token_ids: np.ndarray | None, options: BuildOptions
    ) -> CodedIndex:
        codebook, codes = Codebook.train(vectors.values, token_ids, options)
        part = CodedPart.encode(kernels, codebook, vectors, codes, keep_rows=options.refine)
        return cls(codebook, (part,))

    def decoded(self, document: int) -> np.ndarray:
        """float32 [tokens, dims]: what a search takes the document's vectors for."""
        part, local = self._place(document)
        return part.decoded(self.codebook, slice(*part.tokens.offsets[local : local + 2].tolist()))

    def values(self, document: int) -> np.ndarray:
        """float32 [tokens, dims]: the document's vectors, as well as they are known."""
        part, local = self._place(document)
        return part.values(self.codebook, np.array([local]))

    def _place(self, document: int) -> tuple[CodedPart, int]:
        number = int(np.searchsorted(self.starts, document, side="right")) - 1
        return self.parts[number], document - int(self.starts[number])

    def over_parts(
        self, documents: np.ndarray, work: Callable[[CodedPart, np.ndarray], tuple[np.ndarray, Result]]
    ) -> tuple[np.ndarray, Result]:
        """What `work` makes of documents, part by part by their numbers there, put in the order of `documents`."""
        if len(self.parts) == 1:
            return work(self.parts[0], documents)
        owners = np.searchsorted(self.starts, documents, side="right") - 1
        order = np.argsort(owners, kind="stable")
        made = []
        for number, part in enumerate(self.parts):
            own = documents[order[slice(*np.searchsorted(owners[order], [number, number + 1]))]]
            made.append(work(part, (own - self.starts[number]).astype(np.int32)))
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        second = [extra for _, extra in made if extra is not None]
        return np.concatenate([one for one, _ in made])[back], np.concatenate(second)[back] if second else None

    def to_arrays(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What `from_arrays` needs: JSON values, and arrays by name."""
        facts, arrays = self.codebook.to_arrays()
        for number, part in enumerate(self.parts):
            arrays |= {f"{number}_{name}": array for name, array in part.to_arrays().items()}
        return {**facts, "parts": len(self.parts)}, arrays

    @classmethod
    def from_arrays(cls, facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> CodedIndex:
        codebook = Codebook.from_arrays(facts, arrays)
        parts = []
        for number in range(facts["parts"]):
            prefix = f"{number}_"
            own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            parts.append(CodedPart.from_arrays(codebook, own))
        return cls(codebook, tuple(parts))
