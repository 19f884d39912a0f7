"""NGram: drafts from what stands in the prompt and in the answer so far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ctxkit.models.local.choosing import Guess
from ctxkit.models.local.sampling import Dice
from ctxkit.models.local.speculation import Acceptance, Drafter, Speculation, check_costs
from ctxkit.protocols import Sampling


@dataclass(frozen=True)
class NGram(Speculation):
    """Drafts what followed the last tokens before, in the prompt or in the answer itself.

    longest, shortest: tokens of context that are looked up; the longest that occurred before decides, by how often each
    token followed it, and by which was the last among equals. most: tokens per draft. token_cost: what one more token
    costs in a pass, as a share of a pass over one token: a draft goes on while it is likelier than that to hold.

    The counts and the adaptive length are those of ADED (arXiv 2407.12021); its tree of drafts is not here, because a
    pass reads one continuation. Costs no memory worth naming and no model.
    """

    longest: int = 4
    shortest: int = 2
    most: int = 16
    token_cost: float = 0.2

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest:
            raise ValueError(f"`shortest` must be in [1, `longest`], got {self.shortest!r} and {self.longest!r}")
        check_costs(self.token_cost, self.most)

    @contextmanager
    def drafting(self, sampling: Sampling, dice: Dice, tokens: int) -> Iterator[Drafter]:
        yield _Drafter(self)


class _Drafter:
    def __init__(self, how: NGram) -> None:
        self.how = how
        self.acceptance = Acceptance(how.token_cost)
        self._counts: dict[tuple[int, ...], dict[int, int]] = {}  # followers; the last seen is the last key
        self._read = 0  # tokens of the text that are counted

    def draft(self, text: Sequence[int], most: int) -> Sequence[Guess]:
        self._count(text)
        self.acceptance.fade()
        guesses: list[Guess] = []
        last, chance = list(text[-self.how.longest :]), 1.0
        while len(guesses) < min(most, self.how.most):
            token, share = self._follower(last)
            chance *= share * self.acceptance.rate
            if not self.acceptance.worth(chance):
                break
            guesses.append(Guess(token))
            last = [*last[1 - self.how.longest :], token] if self.how.longest > 1 else [token]
        return guesses

    def note(self, held: int, drafted: int) -> None:
        self.acceptance.note(held, drafted)

    def _count(self, text: Sequence[int]) -> None:
        for at in range(max(self._read, self.how.shortest), len(text)):
            for n in range(self.how.shortest, min(self.how.longest, at) + 1):
                followers = self._counts.setdefault(tuple(text[at - n : at]), {})
                followers[text[at]] = followers.pop(text[at], 0) + 1
        self._read = len(text)

    def _follower(self, last: Sequence[int]) -> tuple[int, float]:
        """The likeliest next token and its share of the counts; (0, 0) where nothing is known."""
        for n in range(min(self.how.longest, len(last)), self.how.shortest - 1, -1):
            if followers := self._counts.get(tuple(last[-n:])):
                most = max(followers.values())
                token = next(token for token in reversed(followers) if followers[token] == most)
                return token, most / sum(followers.values())
        return 0, 0.0
