"""SourcePlanner: which sources to ask, what of theirs is relevant, and an answer that is checked against it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ctxkit.compression.text.score import relevance, terms
from ctxkit.context import Part, passage, question, system
from ctxkit.context.part import SupportsPart
from ctxkit.errors import BudgetInfeasible, BudgetOverdrawn
from ctxkit.protocols import Model, Sampling
from ctxkit_agents.answers import last_number
from ctxkit_agents.batch_prompt import BatchPrompt
from ctxkit_agents.errors import AnswerMalformed
from ctxkit_agents.runtime.forms import Malformed, ask_in_form, object_with
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.task import Task

if TYPE_CHECKING:
    from ctxkit.retrieval import Searchable

Find = Callable[[str, int], Iterable[str | SupportsPart]]
"""What a source finds for a question: at most so many texts, hits or parts, best first."""
Scorer = Callable[[Sequence[str], str], Sequence[float]]
"""How well each text goes with another one, in [0, 1]."""

NULL = "NULL"
"""The source that is none: the model answers from what it knows."""
_FORM = 'Reply with one JSON object: {"sources": ["NAME", ...]}.'
_ANSWER = "Answer from the passages. Where they do not hold the answer, say so."


@dataclass(frozen=True)
class Source:
    """Somewhere to look. name: as the model calls it. find: an index, or a function. description: what is there."""

    name: str
    find: Searchable | Find
    description: str = ""

    def __post_init__(self) -> None:
        if not self.name.strip() or "/" in self.name or self.name.upper() == NULL:
            raise ValueError(f'`name` of a source must be a word other than {NULL} without "/", got {self.name!r}')

    def found(self, asked: str, k: int) -> list[dict[str, str]]:
        """At most k of what it finds, as JSON values."""
        hits: Iterable[Any] = self.find(asked, k) if callable(self.find) else self.find.search(asked, k)
        parts = [passage(one) if isinstance(one, str) else one.as_part() for one in hits]
        return [{"text": one.content, "title": one.title, "source": one.source} for one in parts[:k]]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something found.

    relevance: to the question. consistency: with the answer; both in [0, 1]. used: it stood in the prompt.
    """

    id: str
    source: str
    text: str
    title: str = ""
    relevance: float = 0.0
    consistency: float = 0.0
    used: bool = False

    @property
    def worth(self) -> float:
        return (self.relevance + self.consistency) / 2

    @property
    def part(self) -> Part:
        return passage(self.text, id=self.id, title=self.title, source=self.source, relevance=self.relevance)


@dataclass(frozen=True)
class SourcedAnswer:
    """The answer and what it rests on.

    sources: that were asked; () for NULL. evidence: all that was found, the most relevant first.
    consistency: of the answer with all evidence used; 0 without any. refinements: answers that were made after the
    first.
    """

    text: str
    sources: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    consistency: float = 0.0
    refinements: int = 0


def by_words(texts: Sequence[str], question: str) -> list[float]:
    """Relevance without a model: BM25 of each text, divided by the best."""
    return relevance(texts, question)


def supported(texts: Sequence[str], answer: str) -> list[float]:
    """Share of the answer's words that each text has; 0 for an answer without words.

    >>> supported(["The Rhine rises in the Alps."], "In the Alps, in 1230.")
    [0.5]
    """
    said = set(terms(answer))
    return [len(said & set(terms(text))) / len(said) if said else 0.0 for text in texts]


@dataclass(frozen=True)
class SourcePlanner:
    """Plans sources, scores evidence and refines its answer (UniMS-RAG, arXiv 2401.13256), by prompts alone.

    The model names the sources to ask, or NULL. Each finds 2k texts; the model, or `relevance`, scores each from 0 to
    1; the k best that have `least_relevance` go into the prompt as passages. Where the answer's `consistency` with them
    is below `least_consistency`, it is answered again, `refinements` times at most: evidence worth less than
    `least_relevance` (the mean of its relevance and consistency), the weakest at least, makes place for what was found
    besides. The most consistent answer is the result.

    relevance: of texts to the question, such as `by_words`; None: the model's. consistency: of texts with the answer;
        by their words by default.
    instruction: how to answer.

    What goes on and is said in the outcome: a plan that cannot be read asks every source; a source that fails is left
    out; evidence that the model does not score is scored by words; a refinement that cannot be paid for is not made;
    no evidence left is an answer without. ModelError, CallTimeout, and BudgetOverdrawn before the first answer, are
    raised; AnswerMalformed where every answer is empty.
    Raises ValueError for bad numbers and for two sources of one name.
    """

    model: Model
    sources: Sequence[Source]
    k: int = 4
    least_relevance: float = 0.3
    least_consistency: float = 0.5
    refinements: int = 2
    relevance: Scorer | None = None
    consistency: Scorer = supported
    instruction: str = _ANSWER
    sampling: Sampling = field(default_factory=Sampling)
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        names = [source.name for source in self.sources]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"`sources` must be one or more with different names, got {names}")
        if self.k < 1 or self.refinements < 0:
            raise ValueError(f"`k` must be 1 or more, `refinements` 0 or more, got {self.k!r}, {self.refinements!r}")
        if not (0 <= self.least_relevance <= 1 and 0 <= self.least_consistency <= 1):
            raise ValueError(
                "`least_relevance` and `least_consistency` must be in [0, 1], "
                f"got {self.least_relevance!r} and {self.least_consistency!r}"
            )

    def task(self, asked: str, context: Sequence[Part | SupportsPart] = ()) -> Task[SourcedAnswer]:
        """context: parts that stand before the passages, such as `PersonalContext.parts`. Raises ValueError for no
        question."""
        if not asked.strip():
            raise ValueError("`asked` is empty; there is nothing to answer")
        parts = [one.as_part() for one in context]
        return Task("sources", partial(self._work, asked=asked, context=parts), method="SourcePlanner")

    async def _work(self, job: Job, asked: str, context: Sequence[Part]) -> SourcedAnswer:
        sources = await self._planned(job, asked)
        found = [one for source in sources for one in await self._found(job, source, asked)]
        evidence = await self._scored(job, asked, found)
        names = tuple(source.name for source in sources)
        return await self._answered(job, asked, context, names, evidence)

    async def _planned(self, job: Job, asked: str) -> list[Source]:
        listed = "\n".join(f"- {source.name}: {source.description}" for source in self.sources)
        parts = [
            system(
                "Choose the sources that are needed to answer the question.\n"
                f"{listed}\n- {NULL}: no source is needed\n{_FORM}"
            ),
            question(asked),
        ]
        sampling = replace(self.sampling, max_tokens=min(64, self.sampling.max_tokens))
        try:
            names = await ask_in_form(
                job,
                self.model,
                lambda more: job.plan(self.model, [*parts, *more], sampling),
                self._names,
                sampling,
                step="plan",
                timeout_seconds=self.timeout_seconds,
            )
        except AnswerMalformed as failure:
            job.degraded(f"every source is asked, since the plan cannot be read: {failure}")
            return list(self.sources)
        return [source for source in self.sources if source.name in names]

    def _names(self, text: str) -> set[str]:
        said = object_with(text, "sources")["sources"]
        names = {str(one).strip() for one in (said if isinstance(said, list) else [said])}
        known = {source.name.casefold(): source.name for source in self.sources}
        if unknown := {name for name in names if name.casefold() not in known and name.upper() != NULL}:
            raise Malformed(f"there is no source called {', '.join(sorted(unknown))}")
        return {known[name.casefold()] for name in names if name.upper() != NULL}

    async def _found(self, job: Job, source: Source, asked: str) -> list[Evidence]:
        """What a source finds. A failure is kept in the checkpoint too, so that a resumed run goes the same way."""

        async def look() -> Mapping[str, Any]:
            try:
                return {"found": await asyncio.to_thread(source.found, asked, 2 * self.k)}
            except Exception as error:
                return {"error": f"{type(error).__name__}: {error}"}

        done = (await job.once(f"find-{source.name}", [source.name, asked, self.k], look)).value
        if "error" in done:
            job.degraded(f"the source {source.name} was left out: {done['error']}")
            return []
        return [
            Evidence(f"{source.name}/{n}", one["source"] or source.name, one["text"], one["title"] or source.name)
            for n, one in enumerate(done["found"], 1)
            if one["text"].strip()
        ]

    async def _scored(self, job: Job, asked: str, found: Sequence[Evidence]) -> list[Evidence]:
        """The most relevant first."""
        if not found:
            return []
        texts = [one.text for one in found]
        if self.relevance is not None:
            scores: Sequence[float | None] = self.relevance(texts, asked)
        else:
            scores = await self._by_model(job, asked, texts)
        if missing := sum(score is None for score in scores):
            job.degraded(f"{missing} of {len(found)} texts are scored by words, not by the model")
        words = by_words(texts, asked)
        known = [word if score is None else score for score, word in zip(scores, words, strict=True)]
        scored = [replace(one, relevance=min(1.0, max(0.0, score))) for one, score in zip(found, known, strict=True)]
        return sorted(scored, key=lambda one: -one.relevance)

    async def _by_model(self, job: Job, asked: str, texts: Sequence[str]) -> Sequence[float | None]:
        rating = BatchPrompt(
            self.model,
            f"How relevant is each text to this question, from 0.0 (not at all) to 1.0 (it holds the answer)?\n{asked}",
            rounds=1,
            confidence=False,
            answer=_share,
            sampling=replace(self.sampling, max_tokens=min(8, self.sampling.max_tokens)),
            timeout_seconds=self.timeout_seconds,
        )
        try:
            result = await job.spawn(rating.task(texts), name="relevance")
        except (AnswerMalformed, BudgetInfeasible):
            return [None] * len(texts)
        return [None if one.answer is None else float(one.answer) for one in result.answers]

    async def _answered(
        self, job: Job, asked: str, context: Sequence[Part], names: tuple[str, ...], evidence: list[Evidence]
    ) -> SourcedAnswer:
        """Answers, and answers again with better evidence while that has a chance."""
        good = [one for one in evidence if one.relevance >= self.least_relevance]
        if names and not good:
            job.degraded("the answer rests on no evidence: nothing relevant was found")
        used, spare = good[: self.k], good[self.k :]
        made: list[SourcedAnswer] = []
        while len(made) <= self.refinements:
            answer = await self._attempt(job, asked, context, used, first=not made)
            if answer is None:
                break
            seen = tuple(one for one in answer.evidence if one.used)
            made.append(replace(answer, sources=names, evidence=_merged(evidence, answer.evidence)))
            if not seen or (answer.text.strip() and answer.consistency >= self.least_consistency):
                break
            used, spare = self._improved(answer.evidence, spare)
            if not used:
                break
        best = max(made, key=lambda one: (bool(one.text.strip()), one.consistency))
        if not best.text.strip():
            raise AnswerMalformed(f"{self.model.name!r} answered nothing, {len(made)} times", answer=best.text)
        return replace(best, refinements=len(made) - 1)

    async def _attempt(
        self, job: Job, asked: str, context: Sequence[Part], used: Sequence[Evidence], *, first: bool
    ) -> SourcedAnswer | None:
        """One answer; None for a further one that cannot be paid for."""
        told = [system(self.instruction)] if used else []
        parts = [*told, *context, *(one.part for one in used), question(asked)]
        try:
            plan = job.plan(self.model, parts, self.sampling)
            reply = await job.ask(self.model, plan, self.sampling, step="answer", timeout_seconds=self.timeout_seconds)
        except (BudgetInfeasible, BudgetOverdrawn) as refusal:
            if first:
                raise
            job.degraded(f"the answer is not refined further: {refusal}")
            return None
        kept = {one.part.id for one in plan.decisions if one.kept}
        checked = self._checked([replace(one, used=one.id in kept) for one in used], reply.text)
        shown = [one.text for one in checked if one.used]
        whole = self.consistency(["\n".join(shown)], reply.text)[0] if shown else 0.0
        return SourcedAnswer(reply.text, evidence=tuple(checked), consistency=whole)

    def _checked(self, used: Sequence[Evidence], answer: str) -> list[Evidence]:
        scores = self.consistency([one.text for one in used], answer) if used else []
        return [replace(one, consistency=score) for one, score in zip(used, scores, strict=True)]

    def _improved(self, used: Sequence[Evidence], spare: Sequence[Evidence]) -> tuple[list[Evidence], list[Evidence]]:
        """Evidence without what is weak, and with what was not used yet in its place."""
        weakest = min(reversed(used), key=lambda one: one.worth)
        kept = [one for one in used if one is not weakest and one.worth >= self.least_relevance]
        room = self.k - len(kept)
        return [*kept, *spare[:room]], list(spare[room:])


def _merged(evidence: Sequence[Evidence], used: Sequence[Evidence]) -> tuple[Evidence, ...]:
    by_id = {one.id: one for one in used}
    return tuple(by_id.get(one.id, one) for one in evidence)


def _share(text: str) -> str | None:
    """A number from 0 to 1."""
    number = last_number(text)
    return number if number is not None and 0 <= float(number) <= 1 else None
