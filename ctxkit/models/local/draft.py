"""Draft: drafts of a smaller model over the same vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ctxkit.models.local.choosing import Guess
from ctxkit.models.local.paging.context import KVContext
from ctxkit.models.local.policies.full import Full
from ctxkit.models.local.sampling import Dice, make_distribution
from ctxkit.models.local.speculation import Acceptance, Drafter, Speculation, check_costs
from ctxkit.protocols import Sampling

if TYPE_CHECKING:
    from ctxkit.models.local.model import LocalModel


@dataclass(frozen=True)
class Draft(Speculation):
    """Drafts of a smaller model; the larger one judges them (Leviathan et al. 2022, arXiv 2211.17192).

    model: has the same tokens as the one that it drafts for, and reads its text under full attention. most: tokens per
    draft. token_cost: what one more drafted token costs, its pass in the small model included, as a share of a pass of
    the large one: a draft goes on while it is likelier than that to hold.
    """

    model: LocalModel
    most: int = 8
    token_cost: float = 0.4

    def __post_init__(self) -> None:
        check_costs(self.token_cost, self.most)

    def check(self, model: LocalModel) -> None:
        if self.model.counter.tokenizer.get_vocab() != model.counter.tokenizer.get_vocab():
            raise ValueError(f"{self.model.name} cannot draft for {model.name}: they have not the same tokens")

    @contextmanager
    def drafting(self, sampling: Sampling, dice: Dice, tokens: int) -> Iterator[Drafter]:
        with self.model.scheduler.admitted((), tokens, Full()) as context:
            yield _Drafter(self, context, sampling, dice)


class _Drafter:
    def __init__(self, how: Draft, context: KVContext, sampling: Sampling, dice: Dice) -> None:
        self.how = how
        self.context = context
        self.acceptance = Acceptance(how.token_cost)
        self._dice = dice
        self._distribution = make_distribution(sampling) if sampling.temperature > 0 else None
        self._agreed = 0  # so many of the context's tokens are surely the text's

    def draft(self, text: Sequence[int], most: int) -> Sequence[Guess]:
        self.acceptance.fade()
        most = min(most, self.how.most)
        guesses: list[Guess] = []
        if most < 1:
            return guesses
        logits, chance = self._caught_up(text), 1.0
        while logits is not None:
            guess, share = self._guess(logits)
            chance *= share * self.acceptance.rate
            if not self.acceptance.worth(chance):
                break
            guesses.append(guess)
            if len(guesses) == most:
                break
            logits = self.how.model.scheduler.step(self.context, guess.token)
        return guesses

    def note(self, held: int, drafted: int) -> None:
        self.acceptance.note(held, drafted)

    def _caught_up(self, text: Sequence[int]) -> Tensor | None:
        """Logits after `text`; what stands in the context already is not read again."""
        scheduler, ids = self.how.model.scheduler, self.context.ids
        common = self._agreed
        while common < min(len(ids), len(text) - 1) and ids[common] == text[common]:
            common += 1
        scheduler.engine.crop(self.context, common)
        self._agreed = len(text)
        return scheduler.prefill(text[common:], self.context, lambda: False)

    def _guess(self, logits: Tensor) -> tuple[Guess, float]:
        """A token, and how sure the small model is of it."""
        if self._distribution is None:
            return Guess(int(logits.argmax())), float(logits.softmax(-1).max())
        drawn = self._distribution(logits)
        token = self._dice.pick(drawn)
        return Guess(token, drawn), float(drawn.max())
