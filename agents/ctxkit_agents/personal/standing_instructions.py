"""StandingInstructions: what a user asked for once and for all, and which of it holds for what they say now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from ctxkit.context import Part, Plan, instruction, question, system
from ctxkit.errors import BudgetInfeasible
from ctxkit.protocols import Encoder, Model, Sampling
from ctxkit_agents.errors import AnswerMalformed
from ctxkit_agents.numbered import numbered
from ctxkit_agents.personal.conditions import Conditional, affirmed, contradict, coverage, overrides
from ctxkit_agents.runtime.forms import Malformed, ask_in_form, object_with
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.task import Task

Scorer = Callable[[Sequence[str], str], Sequence[float]]
"""How much each condition is met by what was said, in [0, 1]; called with all conditions at once."""

PRECEDENCE = "Where the request itself says otherwise, the request holds."
_FORM = (
    'Reply with one JSON object: {"apply": [numbers], "overridden": [numbers]}. Empty lists are right where none is.'
)


@dataclass(frozen=True, slots=True)
class Applies:
    """An instruction that holds now.

    number: in the order given, from 0. score: how well its condition is met, in [0, 1].
    because: the number of the instruction that called for it; None where the utterance did. hop: 0 for those.
    """

    number: int
    text: str
    score: float
    because: int | None = None
    hop: int = 0


@dataclass(frozen=True, slots=True)
class Lost:
    """An instruction that would hold, but for what beats it. to: the number of a later one; None for the utterance."""

    number: int
    text: str
    to: int | None

    @property
    def why(self) -> str:
        return "the request says otherwise" if self.to is None else f"instruction {self.to + 1} is later"


@dataclass(frozen=True)
class Selection:
    """What holds for an utterance, in the order given, and what lost."""

    applies: tuple[Applies, ...]
    lost: tuple[Lost, ...] = ()
    pinned: bool = True

    @property
    def text(self) -> str:
        return "\n".join(one.text for one in self.applies)

    @property
    def parts(self) -> list[Part]:
        """Instructions for `fit`, and that the request goes before them; none where nothing applies."""
        if not self.applies:
            return []
        return [
            *(
                instruction(
                    one.text,
                    id=f"standing/{one.number}",
                    source="standing instructions",
                    pinned=self.pinned,
                    relevance=one.score,
                    metadata={"because": one.because, "hop": one.hop},
                )
                for one in self.applies
            ),
            instruction(PRECEDENCE, id="standing/precedence", pinned=self.pinned),
        ]


@dataclass(frozen=True)
class StandingInstructions:
    """Selects the instructions that hold now (Moghe et al., Interpreting User Requests in the Context of Natural
    Language Standing Instructions, NAACL 2024 Findings, arXiv 2311.09796).

    texts: oldest first, such as `ProfileMemory.items("ada/instructions")`: "When I book flights, I prefer aisle seats."
        One without a condition always holds.
    scorer: how well conditions are met; by default the share of their words that were said (English). `by_meaning`
        makes one of an encoder. least: the score from which on an instruction holds.
    hops: how often an instruction that has something done may call for others; 0 for none. What it calls for is
        scored against the utterance with its demand.
    pinned: whether the parts must be in the prompt; else `fit` chooses among them.
    model: selects instead of the scorer, in `task`, and is asked again for what the selected ones call for.

    The current utterance beats instructions, a later instruction beats an earlier one that it contradicts; `lost` says
    which. Both are found by rules for plain English sentences, or by the model; what they miss the model that answers
    must see for itself, so the parts end with `PRECEDENCE`. A model that does not answer in the form twice is replaced
    by the scorer, and the outcome says so; ModelError, CallTimeout and BudgetOverdrawn are raised.
    Raises ValueError for an empty text, a `least` outside (0, 1] and negative `hops`.
    """

    texts: Sequence[str]
    scorer: Scorer = coverage
    least: float = 0.6
    hops: int = 3
    pinned: bool = True
    model: Model | None = None
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=128))
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.texts, str) or not all(text.strip() for text in self.texts):
            raise ValueError(f"`texts` must be a list of instructions, none of them empty, got {self.texts!r}")
        if not 0 < self.least <= 1 or self.hops < 0:
            raise ValueError(f"`least` must be in (0, 1] and `hops` 0 or more, got {self.least!r} and {self.hops!r}")

    @cached_property
    def _read(self) -> tuple[Conditional, ...]:
        return tuple(map(Conditional.of, self.texts))

    def select(self, utterance: str) -> Selection:
        """What holds for it, by the scorer; asks no model."""
        found = self._met(affirmed(utterance), None, range(len(self.texts)), 0)
        newest = list(found)
        for hop in range(1, self.hops + 1):
            newest = [more for one in newest for more in self._called_for(utterance, one, found, hop)]
            if not newest:
                break
        lost = {number for number in found if overrides(utterance, self._read[number])}
        return self._resolved(found, lost)

    def parts(self, utterance: str) -> list[Part]:
        """The selection's instructions, for `fit`."""
        return self.select(utterance).parts

    def task(self, utterance: str) -> Task[Selection]:
        """The selection by the model, where there is one. Raises ValueError for an empty utterance."""
        if not utterance.strip():
            raise ValueError("`utterance` is empty; nothing can be selected for it")
        return Task("standing", partial(self._work, utterance=utterance), method="StandingInstructions")

    def _called_for(self, utterance: str, by: int, found: dict[int, Applies], hop: int) -> list[int]:
        """The instructions that one has applied by what it has done; noted among those found."""
        if not self._read[by].triggers:
            return []
        rest = [number for number in range(len(self.texts)) if number not in found and self._read[number].condition]
        more = self._met(f"{affirmed(utterance)}\n{self._read[by].demand}", by, rest, hop)
        found.update(more)
        return list(more)

    def _met(self, said: str, because: int | None, numbers: Sequence[int], hop: int) -> dict[int, Applies]:
        asked = [number for number in numbers if self._read[number].condition]
        scores = self.scorer([self._read[number].condition for number in asked], said) if asked else []
        by_number = {number: 1.0 for number in numbers if not self._read[number].condition}
        by_number |= {number: min(1.0, score) for number, score in zip(asked, scores, strict=True)}
        return {
            number: Applies(number, self.texts[number], score, because, hop)
            for number, score in sorted(by_number.items())
            if score >= self.least
        }

    def _resolved(self, found: dict[int, Applies], overridden: set[int]) -> Selection:
        """Without those that the utterance beats, what only they called for, and those that a later one beats."""
        standing = _reached({number: one for number, one in found.items() if number not in overridden})
        lost = [Lost(number, self.texts[number], None) for number in sorted(overridden & set(found))]
        for number in sorted(standing):
            later = [n for n in standing if n > number and contradict(self._read[number], self._read[n])]
            if later:
                lost.append(Lost(number, self.texts[number], max(later)))
        beaten = {one.number for one in lost}
        standing = _reached({number: one for number, one in standing.items() if number not in beaten})
        applies = tuple(standing[number] for number in sorted(standing))
        return Selection(applies, tuple(sorted(lost, key=lambda one: one.number)), self.pinned)

    async def _work(self, job: Job, utterance: str) -> Selection:
        if self.model is None or not self.texts:
            return self.select(utterance)
        try:
            found, overridden = await self._asked(job, self.model, utterance)
        except (AnswerMalformed, BudgetInfeasible) as failure:
            job.degraded(f"the instructions are selected by the scorer, not by the model: {failure}")
            return self.select(utterance)
        return self._resolved(found, overridden)

    async def _asked(self, job: Job, model: Model, utterance: str) -> tuple[dict[int, Applies], set[int]]:
        """Pass after pass, until the model finds no further one that the selected ones call for."""
        found: dict[int, Applies] = {}
        overridden: set[int] = set()
        for hop in range(self.hops + 1):
            parts = list(self._prompt(utterance, sorted(found)))
            said = await ask_in_form(
                job,
                model,
                partial(self._plan, job, model, parts),
                self._numbers,
                self.sampling,
                step=f"select-{hop + 1}",
                timeout_seconds=self.timeout_seconds,
            )
            apply, beaten = said
            overridden |= beaten
            more = {n: Applies(n, self.texts[n], 1.0, None, hop) for n in sorted(apply | beaten) if n not in found}
            found |= more
            if not more or len(found) == len(self.texts):
                break
        return found, overridden

    def _prompt(self, utterance: str, known: Sequence[int]) -> Iterator[Part]:
        yield system(f"These are a user's standing instructions, oldest first.\n{numbered(self.texts)}")
        if known:
            listed = ", ".join(str(number + 1) for number in known)
            asked = f"These apply already: {listed}. Which others apply because of what these have done?"
        else:
            asked = "Which of them apply to this request? Which of those does the request itself override?"
        yield question(f"Request: {utterance}\n\n{asked} {_FORM}")

    def _plan(self, job: Job, model: Model, parts: Sequence[Part], more: Sequence[Part]) -> Plan:
        return job.plan(model, [*parts, *more], self.sampling)

    def _numbers(self, text: str) -> tuple[set[int], set[int]]:
        found = object_with(text, "apply")
        return self._known(found["apply"]), self._known(found.get("overridden") or [])

    def _known(self, said: Any) -> set[int]:
        numbers = said if isinstance(said, list) else [said]
        try:
            known = {int(str(one)) - 1 for one in numbers}
        except ValueError:
            known = {-1}
        if not known <= set(range(len(self.texts))):
            raise Malformed(f"numbers must be from 1 to {len(self.texts)}, got {said!r}")
        return known


def by_meaning(encoder: Encoder) -> Scorer:
    """A scorer of conditions by cosine with what was said; give `least` what suits the encoder.

    Raises ValueError for an encoder of many vectors per text.
    """
    if encoder.multi_vector:
        raise ValueError(f"`encoder` must give one vector per text, and {encoder.name!r} gives one per token")

    def score(conditions: Sequence[str], said: str) -> list[float]:
        asked = encoder.encode_queries([said]).values[0]
        return [max(0.0, float(cosine)) for cosine in encoder.encode_documents(conditions).values @ asked]

    return score


def _reached(found: dict[int, Applies]) -> dict[int, Applies]:
    """Those that the utterance, or one that is itself reached, called for."""
    reached = {number: one for number, one in found.items() if one.because is None}
    while more := {n: one for n, one in found.items() if n not in reached and one.because in reached}:
        reached |= more
    return reached
