"""Retrieve to a budget: how many passages a prompt gets is found, not given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ctxkit.context import Budget, Part, Plan, fit
from ctxkit.context.costs import Costs
from ctxkit.errors import StoreError
from ctxkit.protocols import Counter
from ctxkit.retrieval.clusters import without_near_duplicates

if TYPE_CHECKING:
    from ctxkit.retrieval.hit import Hit
    from ctxkit.retrieval.searchable import Searchable

Arrange = Callable[[Sequence[Part]], Sequence[Part]]
"""Puts passages, best first, among the other parts of a prompt."""

MOST_CANDIDATES = 200
"""So many hits of each method are fused by default. Relevances of a longer list are shares of another whole."""

_STEP = 8  # candidates per decision; not a fetch: the plan must not depend on how many are fetched at once


def retrieve_to_budget(
    index: Searchable,
    query: str,
    budget: Budget,
    counter: Counter,
    *,
    arrange: Arrange = list,
    first: int = 16,
    most: int = MOST_CANDIDATES,
    least_value: float = 0.0,
    jaccard: float | None = None,
    **search: Any,
) -> Plan:
    """The plan of as many passages as pay for their tokens.

    Candidates come best first, in batches that double. After each step of 8, `fit` chooses among all so far and states
    its shadow price, the relevance that one more token would buy. It ends when none of the next step pays: each is of
    less relevance per token than that price and larger than what is left over. Then more candidates would not have
    come in, since relevance falls with the rank; a far shorter passage further down could be missed.

    arrange: puts the passages, best first, among the other parts of the prompt: a system part, the question.
    first: hits of the first batch; more of them, and fewer searches, give the same plan.
    most: hits looked at; beyond the depth of the index's fusion (200), relevances would depend on how many are fetched.
    least_value: passages of less relevance are not offered.
    jaccard: leave out a passage whose word triples have this Jaccard index with a better one.
    search: mode, where and sources, as `Index.search` takes them.

    Raises StoreError where nothing was found and `arrange` gives no part, BudgetInfeasible as `fit`, ValueError for
    numbers below 1.
    """
    for name, value in (("first", first), ("most", most)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value!r}")

    def fetch(k: int) -> Sequence[Hit]:
        return index.search(query, k, **search)

    plan = _bought(_Candidates(fetch, first, most, least_value, jaccard), arrange, budget, counter)
    if plan is None:
        raise StoreError(f"the index at {index.path} holds nothing for {query!r}. Add documents, or lift the filter")
    return plan


def _bought(candidates: _Candidates, arrange: Arrange, budget: Budget, counter: Counter) -> Plan | None:
    """The plan after the first step that nothing pays behind; None where there is no part at all."""
    costs = Costs(counter)
    offered = 0
    while True:
        offered += _STEP
        passages = candidates.upto(offered)
        parts = list(arrange(passages))
        if not parts:
            return None
        plan = fit(parts, budget=budget, counter=counter)
        coming = candidates.upto(offered + _STEP)[len(passages) :]
        if not any(_pays(part, costs.part(part), plan) for part in coming):
            return plan


def _pays(part: Part, tokens: int, plan: Plan) -> bool:
    """Whether the passage could change the plan: it is worth the price of its tokens, or fits into what is left."""
    return tokens <= plan.free_tokens or part.relevance * part.priority > plan.shadow_price * tokens


@dataclass
class _Candidates:
    """The hits of one query as passages, fetched as they are asked for. batch: the next fetch, in hits."""

    fetch: Callable[[int], Sequence[Hit]]
    batch: int
    most: int
    least_value: float
    jaccard: float | None
    _passages: list[Part] = field(default_factory=list)
    _complete: bool = False

    def upto(self, count: int) -> list[Part]:
        """The first `count` passages; fewer where there are no more."""
        while len(self._passages) < count and not self._complete:
            self._grow()
        return self._passages[:count]

    def _grow(self) -> None:
        k = min(self.batch, self.most)
        found = self.fetch(k)
        worth = [hit for hit in found if hit.relevance >= self.least_value]
        # Relevance falls with the rank: behind a hit that is worth too little there is no better one.
        self._complete = len(worth) < k or k == self.most
        self.batch *= 2
        chosen = worth if self.jaccard is None else without_near_duplicates(worth, jaccard=self.jaccard)
        self._passages = [hit.as_part() for hit in chosen]
