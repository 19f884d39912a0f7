"""How good a ranking is, as trec_eval counts it (tests compare with ir-measures)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def ndcg(found: Sequence[str], grades: Mapping[str, int], k: int = 10) -> float:
    """nDCG@k of passages, best first: gains are the grades, discounted by log2(rank + 1); 0 where none is relevant."""
    ideal = _discounted(sorted(grades.values(), reverse=True)[:k])
    return _discounted([grades.get(id_, 0) for id_ in found[:k]]) / ideal if ideal else 0.0


def recall(found: Sequence[str], grades: Mapping[str, int], k: int = 10) -> float:
    """The share of the relevant passages (grade above 0) that are among the first k; 0 where none is relevant."""
    relevant = {id_ for id_, grade in grades.items() if grade > 0}
    return len(relevant.intersection(found[:k])) / len(relevant) if relevant else 0.0


def overlap(found: Sequence[str], exact: Sequence[str], k: int = 10) -> float:
    """The share of the first k of an exact search that are among the first k found; 1 where that found nothing."""
    wanted = set(exact[:k])
    return len(wanted.intersection(found[:k])) / len(wanted) if wanted else 1.0


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def _discounted(gains: Sequence[int]) -> float:
    return sum(max(gain, 0) / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))
