"""Pipeline: an index and a model, asked together under one budget."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ctxkit.context import Budget, Part, Plan, fit, question, system
from ctxkit.errors import StoreError
from ctxkit.pipeline import prompts
from ctxkit.pipeline.citations import Citation, Citer, split_sentences
from ctxkit.protocols import Counter, Model, Reply, Sampling, TextStream

if TYPE_CHECKING:
    from ctxkit.retrieval import Searchable

Order = Callable[[Sequence[Part]], Sequence[Part]]

_ALWAYS_OFFERED = 2
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
    candidates: hits offered to the budget. order: how the passages of a chat prompt are put, from best first.
    least_share: a chat prompt leaves out passages of less than this share of the best one's relevance, but for the
        second best: they do not help, and they distract a small model (`benchmarks/answer_quality.py`). 0 fills the
        budget, as `pack` does.
    """

    def __init__(
        self,
        index: Searchable,
        model: Model | None = None,
        *,
        candidates: int = CANDIDATES,
        order: Order = prompts.best_last,
        least_share: float = 0.01,
    ) -> None:
        self.index = index
        self.model = model
        self.candidates = candidates
        self.order = order
        self.least_share = least_share

    def pack(self, asked: str, *, counter: Counter, budget_tokens: int) -> Plan:
        """Passages for any model: `plan.text` takes at most `budget_tokens` as `counter` counts it.

        counter: one that adds no chat format, such as `TemplateCounter.as_text()`.
        Raises StoreError for an empty index.
        """
        passages = self._passages(asked)
        if not passages:
            where = self.index.path
            raise StoreError(f"the index at {where} holds no passages. Add some: ctxkit index FOLDER --to {where}")
        return fit(passages, budget=Budget(budget_tokens), counter=counter)

    def plan(self, asked: str, *, counter: Counter, budget: Budget) -> Plan:
        """The whole chat prompt for a question: rule, two examples where there is room, passages, question."""
        passages = self._passages(asked)
        parts = [system(prompts.SYSTEM), *prompts.examples(), *self.order(passages), question(prompts.ask(asked))]
        worth = [passage.relevance for passage in passages[:_ALWAYS_OFFERED]]
        least = min(worth[-1], self.least_share * worth[0]) if worth else 0.0
        return fit(parts, budget=budget, counter=counter, least_value=least)

    def ask(self, asked: str, *, budget: Budget, sampling: Sampling | None = None) -> AnswerStream:
        """Answer from the index: an iterator of text with citations; `.answer` is there when it ended.

        The answer takes at most the budget's reserve. sampling: greedy by default, with a light penalty on repetition
        and stop strings where a small model goes on to a question of its own.
        """
        if self.model is None:
            raise ValueError("this pipeline has no model; pass one: Pipeline(index, model)")
        plan = self.plan(asked, counter=self.model.counter, budget=budget)
        sampling = sampling or prompts.SAMPLING
        limit = min(sampling.max_tokens, budget.reserve_tokens) if budget.reserve_tokens else sampling.max_tokens
        return AnswerStream(self.model, plan, replace(sampling, max_tokens=limit))

    def _passages(self, asked: str) -> list[Part]:
        return [hit.as_part() for hit in self.index.search(asked, k=self.candidates)]


class AnswerStream:
    """An answer as it is written. Iterate over it for text with [n] after supported sentences, then read `answer`."""

    def __init__(self, model: Model, plan: Plan, sampling: Sampling) -> None:
        self.plan = plan
        self._stream = model.stream(plan, sampling)
        self._citations: list[tuple[str, tuple[Citation, ...]]] = []
        # The generator does not hold `self`: a stream that is dropped is gone at once, and the model stops.
        self._cited = _cited(self._stream, Citer(plan.passages), self._citations)
        self._pieces: list[str] = []
        self._answer: Answer | None = None

    @property
    def answer(self) -> Answer:
        """The finished answer; reads the rest of the stream if nobody did. After `close`, what came until then.

        Raises ModelError where the model failed before the end.
        """
        for _ in self:
            pass
        if self._answer is None:
            self._answer = self._finish()
        return self._answer

    def close(self) -> None:
        """Stop the model."""
        self._stream.close()

    def __iter__(self) -> AnswerStream:
        return self

    def __next__(self) -> str:
        piece = next(self._cited)
        self._pieces.append(piece)
        return piece

    def _finish(self) -> Answer:
        reply = self._stream.reply
        numbers = sorted({one.number for _, cited in self._citations for one in cited})
        sources = {number: self.plan.passages[number] for number in numbers}
        return Answer(reply.text, "".join(self._pieces), tuple(self._citations), sources, self.plan, reply)


def _cited(
    stream: TextStream, citer: Citer, citations: list[tuple[str, tuple[Citation, ...]]]
) -> Generator[str, None, None]:
    """The model's pieces as they come; the marks follow when a sentence turns out to be finished. Code gets none."""
    fenced = False

    def marks(sentence: str) -> str:
        nonlocal fenced
        fence = sentence.strip().startswith("```")
        fenced ^= fence
        cited = () if fenced or fence else citer.cite(sentence)
        if cited:
            citations.append((sentence.strip(), cited))
        return "".join(f" [{one.number}]" for one in cited)

    sentence = ""
    for piece in stream:
        shown = len(sentence)
        *finished, sentence = split_sentences(sentence + piece)
        for one in finished:
            yield one[shown:] + marks(one)
            shown = 0
        if sentence[shown:]:
            yield sentence[shown:]
    if last := marks(sentence):
        yield last
