"""Routers: at which tokens the writer asks the helper, by how sure it is of its own.

One class per rule of FS-GEN (arXiv 2406.12295). A rule sees the highest probabilities of the writer's next token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ctxkit_agents.collaboration.logistic import Logistic

_FEATURES = 10


class Router(ABC):
    """Decides for one token. `looks`: how many of the highest probabilities it wants to see; 0 for none."""

    looks: int

    @abstractmethod
    def consults(self, top: Sequence[float]) -> bool:
        """Whether the helper is asked, given the `looks` highest probabilities, falling."""

    def why(self, top: Sequence[float]) -> str:
        """The reason to ask, in a few words."""
        return "always"


@dataclass(frozen=True)
class Threshold(Router):
    """Asks where the likeliest token has a probability below `threshold`. Nudging's rule (arXiv 2410.09300) too.

    0 never asks, 1 does unless the writer is certain.
    """

    threshold: float = 0.5

    looks = 1

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"`threshold` is a probability, got {self.threshold!r}")

    def consults(self, top: Sequence[float]) -> bool:
        return top[0] < self.threshold

    def why(self, top: Sequence[float]) -> str:
        return f"{top[0]:.2f} < {self.threshold:g}"


@dataclass(frozen=True)
class Delta(Router):
    """Asks where the two likeliest tokens are close: half their difference in probability is below `threshold`."""

    threshold: float = 0.2

    looks = 2

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 0.5:
            raise ValueError(f"`threshold` is half a difference of probabilities, in [0, 0.5]; got {self.threshold!r}")

    def consults(self, top: Sequence[float]) -> bool:
        return (top[0] - top[1]) / 2 < self.threshold

    def why(self, top: Sequence[float]) -> str:
        return f"{top[0]:.2f} and {top[1]:.2f} are close"


@dataclass(frozen=True)
class Seen:
    """What a router saw at one token. differs: the helper chose another token; None where it was not asked."""

    top: tuple[float, ...]
    differs: bool | None = None


@dataclass(frozen=True)
class Learned(Router):
    """Asks where a logistic regression on the ten highest probabilities expects the helper to choose otherwise.

    threshold: of that expectation. Made by `fit`.
    """

    model: Logistic
    threshold: float = 0.5

    looks = _FEATURES

    @classmethod
    def fit(cls, seen: Iterable[Seen], *, threshold: float = 0.5) -> Learned:
        """From what was seen while the helper was asked at each token: `answer.seen` of a TokenCollaboration with
        `Always(looks=10)`. Raises ValueError where the two never or always differ."""
        known = [one for one in seen if one.differs is not None and len(one.top) >= _FEATURES]
        rows = np.array([one.top[:_FEATURES] for one in known]).reshape(-1, _FEATURES)
        return cls(Logistic.fit(rows, [bool(one.differs) for one in known]), threshold)

    def consults(self, top: Sequence[float]) -> bool:
        return self.model.probability(top) >= self.threshold

    def why(self, top: Sequence[float]) -> str:
        return f"expected to differ ({self.model.probability(top):.2f})"


@dataclass(frozen=True)
class Always(Router):
    """Asks at each token. looks: what is noted of the writer's probabilities all the same, for `Learned.fit`."""

    looks: int = 0

    def consults(self, top: Sequence[float]) -> bool:
        return True


@dataclass(frozen=True)
class Never(Router):
    """Lets the writer write alone."""

    looks = 0

    def consults(self, top: Sequence[float]) -> bool:
        return False
