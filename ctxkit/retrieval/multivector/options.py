"""What can be chosen when a multi-vector engine is built and searched."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Mode = Literal["maxsim", "xtr"]

_MEASURED_TOKENS = 1_000_000


@dataclass(frozen=True)
class BuildOptions:
    """How vectors become an engine.

    exact_below_tokens: up to here no index is made; all int8 vectors are scanned.
    tail_tokens: in an index that grows, what comes after is scanned as it is up to here, then coded.
    fresh_rows: in an index, new vectors stay in the database up to here, then go to a file.
    centroids: how many; None: 16 * sqrt(tokens).
    bits: of a residual value, 2 or 4.
    refine: keep int8 vectors beside the codes (dims + 4 bytes per token more), for `SearchOptions.refine_documents`.
    seed: of the clustering; same vectors, options and seed, same engine.
    """

    exact_below_tokens: int = 150_000
    tail_tokens: int = 32_768
    fresh_rows: int = 16_384
    centroids: int | None = None
    bits: int = 4
    refine: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("exact_below_tokens", "tail_tokens", "fresh_rows"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be 0 or more, got {getattr(self, name)!r}")
        if self.centroids is not None and self.centroids < 1:
            raise ValueError(f"`centroids` must be at least 1 or None, got {self.centroids!r}")
        if self.bits not in (2, 4):
            raise ValueError(f"`bits` must be 2 or 4, got {self.bits!r}")


@dataclass(frozen=True)
class SearchOptions:
    """How far a search looks. An exact scan heeds none of it.

    probes: centroids per query token whose documents are candidates.
    t_prime_tokens: WARP_SELECT's t' (arXiv 2501.17788): what lies behind this many nearest tokens is missing.
    coarse_documents: candidates that are scored by the centroids of all their tokens.
    rerank_documents: of these, how many are scored by their codes.
    refine_documents: of these, how many are scored again by their int8 vectors, where the engine keeps them; or 0.

    The defaults find 0.95 (0.96 with refinement) of the exact ten best of a million tokens: benchmarks/multivector.py.
    All numbers but `probes` are for up to a million tokens; in larger collections they grow as tokens ** 0.25, without
    which recall would fall.
    """

    probes: int = 16
    t_prime_tokens: int = 2_000
    coarse_documents: int = 1_200
    rerank_documents: int = 200
    refine_documents: int = 30

    def __post_init__(self) -> None:
        for name in ("probes", "t_prime_tokens", "coarse_documents", "rerank_documents"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)!r}")
        if self.refine_documents < 0:
            raise ValueError(f"`refine_documents` must be 0 or more, got {self.refine_documents!r}")

    def grown(self, tokens: int) -> SearchOptions:
        """The options for a collection of so many tokens."""
        if tokens <= _MEASURED_TOKENS:
            return self
        factor = (tokens / _MEASURED_TOKENS) ** 0.25
        named = ("t_prime_tokens", "coarse_documents", "rerank_documents", "refine_documents")
        return replace(self, **{name: round(getattr(self, name) * factor) for name in named})


@dataclass(frozen=True)
class GpuOptions:
    """How far a search on a GPU looks, and what it may take. An exact scan heeds only the last.

    rerank_documents: how many documents, of all by the centroids of their tokens, are scored by their codes.
    refine_documents: of these, how many are scored again by their int8 vectors, where the engine keeps them; or 0.
    work_bytes: of the device's memory for one step; what needs more is done in several, still with one wait.
    """

    rerank_documents: int = 500
    refine_documents: int = 30
    work_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        for name, least in (("rerank_documents", 1), ("refine_documents", 0), ("work_bytes", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)!r}")
