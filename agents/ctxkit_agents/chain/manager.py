"""The manager: answers from the last unit and the quotes; and what several answers agree on."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import dataclass

from ctxkit.compression.text_compressor import TextCompressor
from ctxkit.context import Budget, fit
from ctxkit.protocols import Sampling
from ctxkit_agents.chain.evidence import Quote, blocks, passages
from ctxkit_agents.chain.layout import ManagerRoom
from ctxkit_agents.chain.prompts import manager_parts
from ctxkit_agents.chain.source import Source
from ctxkit_agents.chain.unit import capped, is_loop
from ctxkit_agents.errors import AnswerMalformed
from ctxkit_agents.runtime.job import Job

_ARTICLE = re.compile(r"\b(?:a|an|the)\s+(?=\S)")
_PUNCTUATION = re.compile(r"[^\w\s](?!\d)")  # but for that of numbers: -3, 3.5, $3


@dataclass(frozen=True)
class Answered:
    """text: the answer. quotes: those that the manager saw. prompt_tokens: of its prompt."""

    text: str
    quotes: tuple[Quote, ...]
    prompt_tokens: int


@dataclass(frozen=True)
class Manager:
    """One model, its window, and the most that evidence and answer may take of it."""

    room: ManagerRoom
    compressor: TextCompressor
    timeout_seconds: float | None = None

    async def answer(
        self,
        job: Job,
        question: str,
        unit: str,
        quotes: Sequence[Quote],
        source: Source,
        *,
        unit_tokens: int,
        decide: bool = False,
    ) -> Answered:
        """Raises BudgetInfeasible where the question does not fit, AnswerMalformed where nothing is said at all."""
        room, model = self.room, self.room.model
        unit = self._in_its_tokens(job, unit, unit_tokens, question)
        listed = blocks(quotes, source)
        parts = manager_parts(question, unit, passages(listed, source, question), decide=decide)
        budget = Budget(room.window_tokens, room.answer_tokens, caps={"passage": room.evidence_tokens}, run=job.run)
        plan = fit(parts, budget=job.affordable(budget), counter=model.counter, compressors=(self.compressor,))
        kept = {decision.part.id for decision in plan.kept}
        shown = [block for number, block in enumerate(listed, 1) if f"evidence-{number}" in kept]
        if len(shown) < len(listed):
            job.degraded(f"{len(listed) - len(shown)} of {len(listed)} quotes had no room in the manager's prompt")
        sampling = Sampling(max_tokens=room.answer_tokens)
        reply = await job.ask(model, plan, sampling, step="manager", timeout_seconds=self.timeout_seconds)
        text = self._checked(job, reply.text.strip(), "" if decide else unit)
        return Answered(text, tuple(quote for block in shown for quote in block), reply.prompt_tokens)

    def _in_its_tokens(self, job: Job, unit: str, tokens: int, question: str) -> str:
        counter = self.room.model.counter
        size = counter.count(unit)
        if size <= tokens:
            return unit
        job.degraded(f"the last unit has {size:,} tokens of the manager's and was compressed to {tokens:,}")
        return capped(unit, tokens, counter, self.compressor, question)

    def _checked(self, job: Job, text: str, unit: str) -> str:
        if not text and not unit:
            raise AnswerMalformed("the manager said nothing, and there is no unit to answer with in its place")
        if not text:
            job.degraded("the manager said nothing; the last unit is the answer")
        elif is_loop(text):
            job.degraded("the manager says the same again and again")
        return text or unit


def normalised(answer: str) -> str:
    """An answer without case, articles and punctuation, so that equal ones are equal.

    >>> normalised("The Panthers.") == normalised("panthers")
    True
    """
    plain = unicodedata.normalize("NFKC", answer).casefold()
    return " ".join(_ARTICLE.sub("", _PUNCTUATION.sub(" ", plain)).split()) or plain.strip()


def majority(answers: Sequence[str]) -> int | None:
    """Which answer more than half of them give, as the first of them gives it; None where there is none."""
    forms = [normalised(answer) for answer in answers]
    form, votes = Tally(forms).most_common(1)[0]
    return forms.index(form) if 2 * votes > len(forms) else None
