"""Chooser: from logits to the next token of one answer, with everything that the answer's tokens so far decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ctxkit.models.local.constraint import Constraint
from ctxkit.models.local.sampling import Dice, make_distribution
from ctxkit.protocols import Sampling


@dataclass(frozen=True)
class Guess:
    """A drafted token. probabilities: what it was drawn from, float32 [vocabulary]; None where it was certain."""

    token: int
    probabilities: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """A token of the answer. logprob, top: where they were asked for; of the model's own logits (natural)."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Chooser:
    """Chooses the tokens of one answer, in order.

    constraint: what may stand in the answer at all; None for anything.

    Greedy at temperature 0. What the frequency penalty and the constraint do comes before temperature, top-k and top-p.
    """

    def __init__(self, sampling: Sampling, dice: Dice, constraint: Constraint | None = None) -> None:
        self.sampling = sampling
        self.dice = dice
        self.constraint = constraint
        self._distribution = make_distribution(sampling) if sampling.temperature > 0 else None
        self._drawn: Counter[int] = Counter()

    @property
    def done(self) -> bool:
        """Whether nothing may follow."""
        return self.constraint is not None and self.constraint.done

    def choose(self, logits: Tensor, guess: Guess | None = None) -> Chosen:
        """The next token; float32 [vocabulary].

        Distributed as without a guess. Where the guess was certain, it is even the same token: one is drawn, and it is
        the guess or not. Where the guess was drawn, drawing and judging it are one draw of the answer's distribution
        (Leviathan et al. 2022, arXiv 2211.17192).
        """
        token = self._pick(self._allowed(logits), guess)
        self._drawn[token] += 1
        if self.constraint is not None:
            self.constraint.accept(token)
        return self._chosen(logits, token)

    def choose_all(self, rows: Tensor, guesses: Sequence[Guess] = ()) -> list[Chosen]:
        """The tokens that one pass decides: the guesses that hold, and one more; float32 [guesses + 1, vocabulary]."""
        found: list[Chosen] = []
        for logits, guess in zip(rows, [*guesses, None], strict=True):
            found.append(self.choose(logits, guess))
            if guess is None or found[-1].token != guess.token or self.done:
                break
        return found

    def _allowed(self, logits: Tensor) -> Tensor:
        if self.sampling.frequency_penalty and self._drawn:
            ids = torch.tensor(list(self._drawn), device=logits.device)
            counts = torch.tensor(list(self._drawn.values()), device=logits.device, dtype=logits.dtype)
            logits = logits.index_add(0, ids, counts, alpha=-self.sampling.frequency_penalty)
        return logits if self.constraint is None else self.constraint.masked(logits)

    def _pick(self, logits: Tensor, guess: Guess | None) -> int:
        if self._distribution is None:
            return int(logits.argmax())
        wanted = self._distribution(logits)
        if guess is None or guess.probabilities is None:
            return self.dice.pick(wanted)
        drafted = guess.probabilities
        if self.dice.chance(float(wanted[guess.token] / drafted[guess.token])):
            return guess.token
        left = (wanted - drafted).clamp_min(0)
        return self.dice.pick(left if left.any() else wanted)  # nothing is left where the two differ by rounding only

    def _chosen(self, logits: Tensor, token: int) -> Chosen:
        if self.sampling.logprobs is None:
            return Chosen(token)
        costs = logits.log_softmax(-1)
        top = costs.topk(min(self.sampling.logprobs, len(costs)))
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return Chosen(token, float(costs[token]), tuple(pairs))
