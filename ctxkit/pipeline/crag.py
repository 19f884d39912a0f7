"""CRAG, Clustered RAG: hits that say the same share one place in the prompt, and the budget is spent by cluster.

Not Corrective RAG (arXiv 2401.15884), and not the CRAG benchmark (arXiv 2406.04744), which have the same short name.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ctxkit.compression import SummaryCache, SummaryCompressor
from ctxkit.context import Budget, LevelRequest, Part, Plan, fit, labels
from ctxkit.context.compose import SEPARATOR, compose, part_text
from ctxkit.context.group import grouped
from ctxkit.errors import PartError
from ctxkit.pipeline.merge import Piece, joined, merged, within
from ctxkit.pipeline.shares import ShareOut, in_turn, shares_of_clusters
from ctxkit.protocols import Counter, Model
from ctxkit.retrieval.clusters import Cluster, Clusters, cluster, hit_vectors, pooled
from ctxkit.retrieval.hit import Hit

if TYPE_CHECKING:
    from ctxkit.retrieval import Searchable

Mode = Literal["representatives", "extract", "summarise"]
MODES: tuple[Mode, ...] = get_args(Mode)

_CORRECTIONS = 4  # of the room, where the exact count is above what the pieces add up to
_LEAST_RELEVANCE = 1e-9  # `fit` offers no place to what has none
_REPEATED = 0.1  # share of all text that must repeat other text for sharing the budget out by cluster to pay


@dataclass(frozen=True)
class Crag:
    """Passages of clusters, within a budget.

    plan: what `fit` made of the passages alone; at most the budget's tokens.
    clusters: all of them, the weightiest first, also those that got no place.
    tokens_in: all hits as passages, what plain retrieval would send.
    """

    plan: Plan
    clusters: tuple[Cluster, ...]
    mode: Mode
    tokens_in: int

    @property
    def parts(self) -> tuple[Part, ...]:
        """The passages, the weightiest cluster first; `metadata["ids"]` names all hits that each stands for."""
        return tuple(decision.part for decision in self.plan.kept)

    @property
    def tokens_out(self) -> int:
        return self.plan.prompt_tokens

    @property
    def saved(self) -> float:
        """Share of the tokens that plain retrieval would have sent besides; 0.0 where nothing was saved."""
        return max(0.0, 1 - self.tokens_out / self.tokens_in) if self.tokens_in else 0.0

    @property
    def coverage(self) -> float:
        """Share of all hits' summed relevance that the representatives of the clusters in the prompt cover."""
        held = {part.id for part in self.parts}
        total = sum(one.weight for one in self.clusters)
        covered = sum(one.covered for one in self.clusters if one.representative.chunk.id in held)
        return min(covered / total, 1.0) if total > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        named = ("id", "title", "content", "source")
        return {
            "mode": self.mode,
            "passages": [{name: getattr(part, name) for name in named} | dict(part.metadata) for part in self.parts],
            "clusters": [{"ids": list(one.ids), "weight": one.weight} for one in self.clusters],
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "coverage": self.coverage,
        }

    def __repr__(self) -> str:
        counts = f"{len(self.parts)} passages of {len(self.clusters)} clusters"
        return f"Crag({self.mode}, {counts}, {self.tokens_in:,} -> {self.tokens_out:,} tokens)"


@dataclass(frozen=True)
class ClusteredRag:
    """Clustered RAG (Akesson and Santos, arXiv 2406.00029): cluster what was found, send what covers the clusters.

    The paper clusters all reviews of a product and sends one summary of each cluster. Here the hits of one query are
    clustered, under a token budget, with or without a model, and every passage names all hits that it stands for.

    mode: "representatives" sends the passage that stands for each cluster; "extract" shares the budget out by
        relevance, nobody getting more than what it says beyond others needs, and fills each cluster's share with the
        sentences that matter for the question; "summarise" does so with a model's summary of each cluster.
    k, balance, seed: as `ctxkit.retrieval.clusters.cluster` takes them.
    model: for "summarise"; asked for several clusters at once. threads: for how many.
    cache: summaries by a digest of model, instruction and text; give one that outlives the object.
    summary_tokens: the longest summary, as of `SummaryCompressor`: in the model's tokens and in the target's.

    Where hardly any text repeats (a tenth), "extract" makes every hit a cluster and takes them in order of relevance,
    the last one cut: sharing the budget out would only take from the best.

    A summary that fails, is empty or is not shorter becomes a SummaryRejected warning, and the cluster is extracted.
    """

    mode: Mode = "extract"
    k: Clusters = "silhouette"
    balance: float = 0.7
    seed: int = 0
    model: Model | None = None
    cache: SummaryCache = field(default_factory=dict[str, str], repr=False)
    threads: int = 4
    summary_tokens: int = 256

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"`mode` must be one of {', '.join(MODES)}, got {self.mode!r}")
        if self.mode == "summarise" and self.model is None:
            raise ValueError("mode 'summarise' asks a model; pass one: ClusteredRag('summarise', model=...)")
        for name in ("threads", "summary_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)!r}")

    def search(
        self,
        index: Searchable,
        asked: str,
        *,
        budget_tokens: int,
        counter: Counter,
        candidates: int = 20,
        **search: Any,
    ) -> Crag:
        """`pack` of the index's best hits, compared by the vectors it holds, or new ones. search: as `Index.search`."""
        hits = index.search(asked, candidates, **search)
        held = getattr(index, "vectors_of", None)  # a vector database is not asked for them
        ids = [hit.chunk.id for hit in hits]
        vectors = pooled(held(ids)) if held is not None else hit_vectors(hits, index.encoder)
        return self.pack(asked, hits, vectors, budget_tokens=budget_tokens, counter=counter)

    def pack(
        self, asked: str, hits: Sequence[Hit], vectors: np.ndarray, *, budget_tokens: int, counter: Counter
    ) -> Crag:
        """The clusters of these hits in at most `budget_tokens`, template included, as `counter` counts them.

        vectors: one per hit, [hits, dims]. Raises PartError without hits, and BudgetInfeasible where not one passage
        fits.
        """
        if not hits:
            raise PartError("there are no hits to cluster")
        clusters = cluster(hits, vectors, self.k, balance=self.balance, seed=self.seed)
        drafts = self._drafts(asked, clusters, counter)
        budget = Budget(budget_tokens)
        if self.mode == "representatives":
            plan = fit([draft.part for draft in drafts], budget=budget, counter=counter)
        elif self.mode == "extract" and not _repeats(hits, drafts):
            clusters = _singles(hits)
            plan = _fitted(asked, self._drafts(asked, clusters, counter), budget, counter, in_turn)
        else:
            plan = _fitted(asked, drafts, budget, counter, shares_of_clusters)
        tokens_in = _tokens([hit.as_part(id=str(i)) for i, hit in enumerate(hits)], counter)
        return Crag(plan, clusters, self.mode, tokens_in)

    def _drafts(self, asked: str, clusters: Sequence[Cluster], counter: Counter) -> list[_Draft]:
        """A passage for each cluster, as long as it would like to be."""
        total = max(sum(one.weight for one in clusters), 1.0)
        parts = [_part(one, one.weight / total) for one in clusters]
        if self.mode == "representatives":
            return [_Draft(part, ()) for part in parts]
        drafts = [_draft(part, merged(one)) for part, one in zip(parts, clusters, strict=True)]
        return self._summarised(asked, drafts, counter) if self.mode == "summarise" else drafts

    def _summarised(self, asked: str, drafts: Sequence[_Draft], counter: Counter) -> list[_Draft]:
        """The drafts, each with a summary for content where the model gave one."""
        if self.model is None:
            return list(drafts)
        compressor = SummaryCompressor(self.model, self.cache, self.summary_tokens)
        request = LevelRequest(asked, counter)

        def summary(draft: _Draft) -> _Draft:
            level = next(compressor.levels(grouped((draft.part,))[0], request), None)
            if level is None:
                return draft
            said = level.parts[0]
            return _Draft(said, (Piece(said.content, sum(piece.weight for piece in draft.pieces)),))

        with ThreadPoolExecutor(self.threads, thread_name_prefix="ctxkit-crag") as pool:
            return list(pool.map(summary, drafts))


@dataclass(frozen=True)
class _Draft:
    """A passage before it is cut to its share, and the pieces that its content is made of."""

    part: Part
    pieces: tuple[Piece, ...]


def _draft(part: Part, pieces: Sequence[Piece]) -> _Draft:
    return _Draft(replace(part, content=joined(pieces)), tuple(pieces))


def _repeats(hits: Sequence[Hit], drafts: Sequence[_Draft]) -> bool:
    """Whether the hits say much more than once."""
    kept = sum(len(piece.text) for draft in drafts for piece in draft.pieces)
    return kept < (1 - _REPEATED) * sum(len(hit.chunk.text) for hit in hits)


def _singles(hits: Sequence[Hit]) -> tuple[Cluster, ...]:
    """Every hit for itself, the most relevant first."""
    ordered = sorted(hits, key=lambda hit: (-hit.relevance, hit.rank))
    return tuple(Cluster((hit,), hit, hit.relevance, hit.relevance) for hit in ordered)


def _part(one: Cluster, relevance: float) -> Part:
    """The representative as a passage that names all hits of its cluster, and has the label of all of them."""
    sources = list(dict.fromkeys(hit.chunk.source for hit in one.hits))
    own = labels.joined(hit.as_part().label for hit in one.hits)
    return one.representative.as_part(
        label=None if own.is_default else own,
        relevance=min(max(relevance, _LEAST_RELEVANCE), 1.0),
        source="; ".join(one.locations),
        metadata={"ids": list(one.ids), "sources": sources},
    )


def _fitted(asked: str, drafts: Sequence[_Draft], budget: Budget, counter: Counter, share_out: ShareOut) -> Plan:
    """The plan of the drafts, each within its share of the budget; the room shrinks until all that have one are in."""
    needs = [counter.count_batch([f"\n{piece.text}" for piece in draft.pieces]) for draft in drafts]
    weights = [[piece.weight for piece in draft.pieces] for draft in drafts]
    placed = [draft.part for draft in drafts]
    bare = [SEPARATOR + part_text(replace(part, content=""), 10) for part in placed]
    overheads, room = counter.count_batch(bare), budget.prompt_tokens - _tokens([], counter)
    for _ in range(_CORRECTIONS):
        shares = share_out(needs, weights, overheads, room)
        placed = [
            replace(draft.part, content=within(draft.part.content, asked, share, counter))
            for i, (draft, share) in enumerate(zip(drafts, shares, strict=True))
            if share or not i
        ]
        over = _tokens(placed, counter) - budget.prompt_tokens
        if over <= 0:
            break
        room -= over
    return fit(placed, budget=budget, counter=counter)


def _tokens(parts: Sequence[Part], counter: Counter) -> int:
    """Tokens of a prompt of these passages, or of the template around one of no words."""
    messages = compose(parts or [Part("passage", "", id="empty")])
    return counter.render(messages).tokens
