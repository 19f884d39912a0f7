"""Pipeline: an index and a model, asked together under one budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ctxkit.context import Budget, Part, Plan, fit, question, system
from ctxkit.pipeline import prompts
from ctxkit.pipeline.citations import Citation, Citer, split_sentences
from ctxkit.protocols import Counter, Model, Reply, Sampling

if TYPE_CHECKING:
    from ctxkit.retrieval import Index

CANDIDATES = 40  # hits offered to `fit`; how many get in is its decision


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its sources.

    text: what the model wrote. cited_text: the same, with [n] after each sentence that a passage supports.
    citations: per supported sentence, in order. sources: citation number -> passage, only those cited.
    """

    text: str
    cited_text: str
    citations: tuple[tuple[str, tuple[Citation, ...]], ...]
    sources: dict[int, Part]
    plan: Plan
    reply: Reply

    def to_dict(self) -> dict[str, Any]:
        return {
            "answer": self.text,
            "cited_answer": self.cited_text,
            "sources": [
                {"number": number, "id": part.id, "source": part.source, "title": part.title}
                for number, part in self.sources.items()
            ],
            "citations": [
                {"sentence": sentence, "numbers": [one.number for one in cited], "support": cited[0].support}
                for sentence, cited in self.citations
            ],
            "finish_reason": self.reply.finish_reason,
            "prompt_tokens": self.reply.prompt_tokens,
            "completion_tokens": self.reply.completion_tokens,
            "plan": self.plan.to_dict(),
        }


class Pipeline:
    """Questions to plans and answers.

    index: where passages come from. model: what answers; `plan` and `pack` need only its counter.
    """

    def __init__(self, index: Index, model: Model | None = None, *, candidates: int = CANDIDATES) -> None:
        self.index = index
        self.model = model
        self.candidates = candidates

    def pack(self, asked: str, *, counter: Counter, budget_tokens: int) -> Plan:
        """Passages for any model: `plan.text` takes at most `budget_tokens` as `counter` counts it.

        counter: one that adds no chat format, such as `TemplateCounter.as_text()`.
        """
        return fit(self._passages(asked), budget=Budget(budget_tokens), counter=counter)

    def plan(self, asked: str, *, counter: Counter, budget: Budget) -> Plan:
        """The whole chat prompt for a question: rule, passages, question."""
        parts = [system(prompts.SYSTEM), *self._passages(asked), question(prompts.ask(asked))]
        return fit(parts, budget=budget, counter=counter)

    def ask(self, asked: str, *, budget: Budget, sampling: Sampling | None = None) -> AnswerStream:
        """Answer from the index: an iterator of text with citations; `.answer` is there when it ended.

        The answer takes at most the budget's reserve.
        """
        if self.model is None:
            raise ValueError("this pipeline has no model; pass one: Pipeline(index, model)")
        plan = self.plan(asked, counter=self.model.counter, budget=budget)
        sampling = sampling or Sampling()
        limit = min(sampling.max_tokens, budget.reserve_tokens) if budget.reserve_tokens else sampling.max_tokens
        return AnswerStream(self.model, plan, replace(sampling, max_tokens=limit))

    def _passages(self, asked: str) -> list[Part]:
        return [hit.as_part() for hit in self.index.search(asked, k=self.candidates)]


class AnswerStream:
    """An answer as it is written. Iterate over it for text with [n] after supported sentences, then read `answer`."""

    def __init__(self, model: Model, plan: Plan, sampling: Sampling) -> None:
        self.plan = plan
        self._stream = model.stream(plan, sampling)
        self._citer = Citer(plan.passages)
        self._citations: list[tuple[str, tuple[Citation, ...]]] = []
        self._pieces: list[str] = []
        self._answer: Answer | None = None

    @property
    def answer(self) -> Answer:
        """The finished answer; reads the stream to its end if nobody did."""
        if self._answer is None:
            for _ in self:
                pass
        if self._answer is None:
            raise RuntimeError("the stream was closed before the answer was finished")
        return self._answer

    def close(self) -> None:
        """Stop the model."""
        self._stream.close()

    def __iter__(self) -> Iterator[str]:
        for piece in self._cited():
            self._pieces.append(piece)
            yield piece
        self._answer = self._finish()

    def _cited(self) -> Iterator[str]:
        """The model's pieces as they come; the marks follow when a sentence turns out to be finished."""
        sentence = ""
        for piece in self._stream:
            shown = len(sentence)
            *finished, sentence = split_sentences(sentence + piece)
            for one in finished:
                yield one[shown:] + self._marks(one)
                shown = 0
            if sentence[shown:]:
                yield sentence[shown:]
        if marks := self._marks(sentence):
            yield marks

    def _marks(self, sentence: str) -> str:
        cited = self._citer.cite(sentence)
        if cited:
            self._citations.append((sentence.strip(), cited))
        return "".join(f" [{one.number}]" for one in cited)

    def _finish(self) -> Answer:
        reply = self._stream.reply
        numbers = sorted({one.number for _, cited in self._citations for one in cited})
        sources = {number: self.plan.passages[number] for number in numbers}
        return Answer(reply.text, "".join(self._pieces), tuple(self._citations), sources, self.plan, reply)
