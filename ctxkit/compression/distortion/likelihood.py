"""How likely a model finds an answer, and how far that shifts from one prompt to another (POSIX, arXiv 2410.02185)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ctxkit.protocols import Counter, Located, PromptMessage, Segment

if TYPE_CHECKING:
    import numpy as np


class TextCounter(Counter, Protocol):
    """A Counter that knows where its tokens stand, and can leave its chat template out."""

    def as_text(self) -> TextCounter: ...

    def locate(self, prompt: str) -> Located: ...


class ScoringModel(Protocol):
    """What a model with the capability "score" has."""

    @property
    def counter(self) -> TextCounter: ...

    def score(self, prompt_ids: Sequence[int], continuation_ids: Sequence[int]) -> np.ndarray: ...


def prompt_ids(counter: Counter, prompt: str) -> tuple[int, ...]:
    """The ids of a prompt of one user message. Raises PromptError."""
    return counter.render([PromptMessage("user", (Segment(prompt),))]).ids or ()


def answer_ids(counter: TextCounter, answer: str) -> tuple[int, ...]:
    """The ids of an answer as it stands behind a prompt: text, no template."""
    return prompt_ids(counter.as_text(), answer)


def mean_log_probability(log_probabilities: Sequence[float] | np.ndarray) -> float:
    """Per token, so that long and short answers compare; 0.0 for an answer of no tokens."""
    return float(sum(log_probabilities)) / len(log_probabilities) if len(log_probabilities) else 0.0


def shift(here: float, there: float) -> float:
    """How far an answer's log-probability per token moves between two prompts: |log P(y|x') / P(y|x)| / tokens of y."""
    return abs(here - there)


def sensitivity(means: Sequence[Sequence[float]]) -> float:
    """psi of POSIX (arXiv 2410.02185): the mean shift over all ordered pairs of prompts of one intent, 0 or more.

    means: [prompts, prompts]; row i, column j is the log-probability per token of the answer to prompt j after prompt
        i. Raises ValueError for fewer than two prompts.

    >>> sensitivity([[-1.0, -2.0], [-1.5, -1.0]])
    0.75
    """
    prompts = len(means)
    if prompts < 2:
        raise ValueError(f"sensitivity is between prompts: give two or more, got {prompts}")
    shifts = (shift(means[i][j], means[j][j]) for i in range(prompts) for j in range(prompts) if i != j)
    return sum(shifts) / (prompts * (prompts - 1))
