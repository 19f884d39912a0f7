"""Speculative decoding: who drafts tokens, how many, and where drafts can be judged without loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from ctxkit.models.local.choosing import Guess
from ctxkit.models.local.policies.base import Policy, overrides
from ctxkit.models.local.sampling import Dice
from ctxkit.protocols import Sampling

if TYPE_CHECKING:
    from ctxkit.models.local.model import LocalModel

_PRIOR_HELD, _PRIOR_JUDGED = 2.0, 3.0  # before anything was judged, two of three guesses are taken to hold
_KEPT = 0.98  # of what is known, per draft: so that a bad stretch does not end drafting for good


class Drafter(Protocol):
    """Guesses how one answer goes on."""

    def draft(self, text: Sequence[int], most: int) -> Sequence[Guess]:
        """At most `most` tokens that may follow `text`, the prompt and the answer so far, which only grows."""
        ...

    def note(self, held: int, drafted: int) -> None:
        """What became of the last draft."""
        ...


class Speculation(ABC):
    """How to draft: `NGram`, or `Draft` with a smaller model."""

    def check(self, model: LocalModel) -> None:  # noqa: B027 - most can draft for any model
        """Raises ValueError where this cannot draft for `model`."""

    @abstractmethod
    def drafting(self, sampling: Sampling, dice: Dice, tokens: int) -> AbstractContextManager[Drafter]:
        """A drafter for one answer; prompt and answer have at most `tokens`. dice: the answer's own."""


class Acceptance:
    """How likely a guess holds, learned from the drafts so far, and how long a draft is worth it.

    token_cost: what one more token costs in a pass, as a share of a pass over one token.
    """

    def __init__(self, token_cost: float) -> None:
        self.token_cost = token_cost
        self._held, self._judged = _PRIOR_HELD, _PRIOR_JUDGED

    @property
    def rate(self) -> float:
        return self._held / self._judged

    def worth(self, chance: float) -> bool:
        """Whether a guess that holds with this probability pays for its place in the pass."""
        return chance > self.token_cost

    def note(self, held: int, drafted: int) -> None:
        """The guesses behind the first that fails were not judged."""
        self._held += held
        self._judged += held + (held < drafted)

    def fade(self) -> None:
        self._held = _PRIOR_HELD + (self._held - _PRIOR_HELD) * _KEPT
        self._judged = _PRIOR_JUDGED + (self._judged - _PRIOR_JUDGED) * _KEPT


def reversible(policy: Policy) -> bool:
    """Whether a pass over several tokens shows each of them what single passes would, and can be taken back.

    Not so where the policy decides anew with every pass: what it drops, selects or notes then depends on the guesses.
    """
    return not policy.needs and not any(overrides(policy, hook) for hook in ("retain", "select", "observe"))


def check_costs(token_cost: float, most: int) -> None:
    if not 0 <= token_cost < 1:
        raise ValueError(f"`token_cost` must be in [0, 1), got {token_cost!r}")
    if most < 1:
        raise ValueError(f"`most` must be at least 1, got {most!r}")
