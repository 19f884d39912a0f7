"""Deferral: how much a model trusts its own answer, read off the log-probabilities of the answer's tokens.

The rules of "Language Model Cascades: Token-level uncertainty and beyond" (arXiv 2404.10136), one class each, and how
their thresholds are set on examples.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctxkit_agents.collaboration.logistic import Logistic

NO_TRUST = float("-inf")
"""The score of an answer without a token."""

_QUANTILES = tuple(n / 9 for n in range(10))


class DeferralRule(ABC):
    """Scores an answer: the higher, the more it is trusted. Below a threshold it is deferred to the next model."""

    def score(self, logprobs: Sequence[float]) -> float:
        """Of the log-probabilities (natural) of the answer's tokens; `NO_TRUST` where there is none."""
        return self.trust(logprobs) if logprobs else NO_TRUST

    @abstractmethod
    def trust(self, logprobs: Sequence[float]) -> float:
        """Of at least one log-probability."""


@dataclass(frozen=True)
class ChowSum(DeferralRule):
    """The log-probability of the whole answer; long answers are trusted less."""

    def trust(self, logprobs: Sequence[float]) -> float:
        return math.fsum(logprobs)


@dataclass(frozen=True)
class ChowMean(DeferralRule):
    """The mean log-probability of a token; one bad token in a long answer hardly shows."""

    def trust(self, logprobs: Sequence[float]) -> float:
        return math.fsum(logprobs) / len(logprobs)


@dataclass(frozen=True)
class ChowQuantile(DeferralRule):
    """The `alpha`-quantile of the tokens' log-probabilities, linearly interpolated. 0, the least sure token, is a good
    beginning: it neither grows with the length nor hides one bad token.

    >>> ChowQuantile(0.5).score([-1.0, -3.0, -2.0, -8.0])
    -2.5
    """

    alpha: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"`alpha` is a quantile, in [0, 1]; got {self.alpha!r}")

    def trust(self, logprobs: Sequence[float]) -> float:
        return quantile(logprobs, self.alpha)


@dataclass(frozen=True)
class FittedRule(DeferralRule):
    """The probability that the answer is right, by a logistic regression on ten quantiles and the length. See `fit`."""

    model: Logistic

    @classmethod
    def fit(cls, logprobs: Sequence[Sequence[float]], right: Sequence[bool]) -> FittedRule:
        """From answers of the model that defers, and whether each was right. Answers without a token are left out.

        Raises ValueError where they were all right or all wrong.
        """
        import numpy as np

        from ctxkit_agents.collaboration.logistic import Logistic

        known = [(_features(one), ok) for one, ok in zip(logprobs, right, strict=True) if one]
        rows = np.array([row for row, _ in known]).reshape(-1, len(_QUANTILES) + 1)
        return cls(Logistic.fit(rows, [ok for _, ok in known]))

    def trust(self, logprobs: Sequence[float]) -> float:
        return self.model.probability(_features(logprobs))


def defers(score: float, threshold: float) -> bool:
    """Whether an answer of this score goes to the next model; one without a token always does."""
    return score == NO_TRUST or score < threshold


def _features(logprobs: Sequence[float]) -> list[float]:
    return [*(quantile(logprobs, q) for q in _QUANTILES), float(len(logprobs))]


def quantile(values: Sequence[float], q: float) -> float:
    """Linearly interpolated; of at least one value."""
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


# --- calibration -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CascadeExample:
    """One prompt, answered by every model of a cascade, smallest first.

    logprobs: of each model's tokens; the last model's may be empty. right: whether each answer was. tokens: that each
    answer cost, prompt and answer together.
    """

    logprobs: tuple[tuple[float, ...], ...]
    right: tuple[bool, ...]
    tokens: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.logprobs) == len(self.right) == len(self.tokens):
            raise ValueError(f"an example has one entry per model, for at least two models; got {self!r}")


@dataclass(frozen=True)
class CostQuality:
    """A cascade with these thresholds on the examples.

    share: of the prompts that got beyond the first model. quality: share of right answers. tokens: per prompt, of all
    models that were asked. thresholds: one per model but the last.
    """

    share: float
    quality: float
    tokens: float
    thresholds: tuple[float, ...]


@dataclass(frozen=True)
class CostQualityCurve:
    """What a rule gives at rising shares of deferral. `str()` is a table, `to_dict()` goes into JSON.

    alone: quality and tokens of each model by itself.
    """

    points: tuple[CostQuality, ...]
    alone: tuple[tuple[float, float], ...]

    def __iter__(self) -> Iterator[CostQuality]:
        return iter(self.points)

    def __str__(self) -> str:
        lines = [f"{'deferred':>8}  {'right':>7}  {'tokens':>9}  thresholds"]
        for one in self.points:
            bars = ", ".join(f"{bar:.3g}" for bar in one.thresholds)
            lines.append(f"{one.share:8.0%}  {one.quality:7.1%}  {one.tokens:9,.1f}  {bars}")
        lines += [f"{f'model {n}':>8}  {right:7.1%}  {tokens:9,.1f}" for n, (right, tokens) in enumerate(self.alone, 1)]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def curve(rule: DeferralRule, examples: Sequence[CascadeExample]) -> CostQualityCurve:
    """Every distinct point, from deferring nothing to deferring all.

    With more than two models each defers the same share of what it gets. Raises ValueError without examples, and for
    examples of different numbers of models.
    """
    if len({len(example.right) for example in examples}) != 1:
        raise ValueError(f"needs examples, all of the same models; got {len(examples)} of different length or none")
    scores = [[rule.score(logprobs) for logprobs in example.logprobs[:-1]] for example in examples]
    found: dict[float, CostQuality] = {}
    for count in range(len(examples) + 1):
        point = _point(examples, scores, count / len(examples))
        found.setdefault(point.share, point)
    alone = tuple(
        (
            sum(example.right[n] for example in examples) / len(examples),
            sum(example.tokens[n] for example in examples) / len(examples),
        )
        for n in range(len(examples[0].right))
    )
    return CostQualityCurve(tuple(found[share] for share in sorted(found)), alone)


def _point(examples: Sequence[CascadeExample], scores: Sequence[Sequence[float]], share: float) -> CostQuality:
    """Each model defers about `share` of what it gets; equal scores stay together."""
    here, tokens, right, beyond = list(range(len(examples))), 0, 0, 0
    thresholds: list[float] = []
    for stage in range(len(examples[0].right)):
        tokens += sum(examples[n].tokens[stage] for n in here)
        last = stage == len(examples[0].right) - 1
        bar = NO_TRUST if last else _threshold([scores[n][stage] for n in here], share)
        deferred = [] if last else [n for n in here if defers(scores[n][stage], bar)]
        right += sum(examples[n].right[stage] for n in here if n not in set(deferred))
        beyond = len(deferred) if stage == 0 else beyond
        here = deferred
        if not last:
            thresholds.append(bar)
    return CostQuality(beyond / len(examples), right / len(examples), tokens / len(examples), tuple(thresholds))


def _threshold(scores: Sequence[float], share: float) -> float:
    """The lowest score that is not deferred, where the `share` lowest are."""
    ordered = sorted(scores)
    count = round(share * len(ordered))
    return ordered[count] if count < len(ordered) else float("inf")
