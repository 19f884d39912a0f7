"""BatchPrompt: many items in one prompt, asked again in another order, and the majority of what was said of each."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Literal

from ctxkit.context import question
from ctxkit.errors import BudgetOverdrawn, CtxkitError, ModelError
from ctxkit.models.requests import as_request, count_prompt
from ctxkit.protocols import Model, Reply, Sampling
from ctxkit_agents.answers import Extractor, choice, last_line
from ctxkit_agents.ballots import is_decided, leaders, tally
from ctxkit_agents.errors import AnswerMalformed, CallTimeout
from ctxkit_agents.numbered import numbered, numbered_lines
from ctxkit_agents.runtime.checkpoint import digest_of
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.purse import Purse
from ctxkit_agents.runtime.task import Task

Note = Literal["answered", "unanswered", "too long", "not paid"]
_SURE, _UNSURE = "sure", "unsure"


@dataclass(frozen=True, slots=True)
class ItemAnswer:
    """What the votes on one item came to.

    item: its number, from 0. answer: None where there is none, and `note` says why: no readable answer, longer than
    the window, or the run could not pay. votes: per answer. confidence: share of its votes that said this and were
    sure of it; that said this, where nobody was asked how sure they are. rounds: in which it was answered.
    """

    item: int
    answer: str | None
    votes: dict[str, int]
    confidence: float
    rounds: int
    note: Note


@dataclass(frozen=True)
class BatchResult:
    """The answers, in the order of the items, and what they cost.

    tokens_in, tokens_out, calls: of this task. alone_tokens_in: of one prompt per item, each asked once, by the same
    counter. alone_tokens_out: of one line of answer per item.
    """

    answers: tuple[ItemAnswer, ...]
    calls: int
    tokens_in: int
    tokens_out: int
    alone_tokens_in: int
    alone_tokens_out: int

    @property
    def text(self) -> str:
        """A line per item: its number, from 1, and the answer, or why there is none."""
        return "\n".join(f"{one.item + 1}: {one.answer or f'({one.note})'}" for one in self.answers)

    @property
    def share_of_tokens(self) -> float:
        """Of what asking each item once and alone would have cost."""
        return (self.tokens_in + self.tokens_out) / max(1, self.alone_tokens_in + self.alone_tokens_out)


@dataclass(frozen=True)
class BatchPrompt:
    """Many items in one prompt (Lin et al., BatchPrompt, ICLR 2024, arXiv 2309.00384).

    Each round puts the open items into batches in another order (seeded), because where an item stands changes its
    answer; the majority of the rounds is the answer (BPE). An item is done after two consecutive equal answers that
    the model was sure of (SEAS), and when the majority cannot change any more. What is missing from an answer, or
    cannot be read, is asked again in the next round, and at last alone; at once where nothing could be read.

    instruction: what to do with each item. options: the answers allowed; any line if there are none.
    batch_size: at most; a batch is as large as the window, and what the run can pay for, hold.
    rounds: at most. confidence: ask how sure the model is. answer: what of a line is compared; the option, or the line.
    constrained: make the model answer in the form, for models that take a regular expression (`response_format`).
    sampling: `max_tokens` is what one item may take of the answer. at_once: calls at a time, at most.

    A batch that fails is left out of its round, and the outcome says so. A round in which every call fails ends the
    run: with what there is, or with that failure where there is nothing. BudgetOverdrawn, BudgetInfeasible (no item
    fits into the window) and AnswerMalformed are raised only where no item has an answer; else each item without one
    has a note. Raises ValueError for numbers below 1 and an empty instruction.
    """

    model: Model
    instruction: str
    options: Sequence[str] = ()
    batch_size: int = 32
    rounds: int = 5
    confidence: bool = True
    answer: Extractor | None = None
    constrained: bool = False
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=16))
    seed: int = 0
    at_once: int = 4
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        if not self.instruction.strip():
            raise ValueError("`instruction` must say what to do with each item, got nothing")
        for name in ("batch_size", "rounds", "at_once"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)!r}")
        _ = self._extract

    def task(self, items: Sequence[str]) -> Task[BatchResult]:
        """items: one or more texts. Raises ValueError where there is none, and for an empty one."""
        if isinstance(items, str) or not items:
            raise ValueError(f"`items` must be a list of one or more texts, got {items!r}")
        if blank := [n for n, item in enumerate(items, 1) if not item.strip()]:
            raise ValueError(f"item {blank[0]} is empty; leave it out")
        return Task("batch", partial(self._work, items=tuple(items)), method="BatchPrompt")

    def prompt(self, items: Sequence[str]) -> str:
        """The prompt that these items stand in together."""
        what = f"one of: {', '.join(self.options)}" if self.options else "the answer"
        sure = f', then " | {_SURE}" or " | {_UNSURE}"' if self.confidence else ""
        return (
            f"{self.instruction.strip()}\n\n{numbered(items)}\n\n"
            f"Answer each item, {len(items)} in all, in a line of its own: its number, a colon, {what}{sure}. "
            "Write nothing else."
        )

    @cached_property
    def _extract(self) -> Extractor:
        return self.answer or (choice(self.options) if self.options else last_line)

    def form(self, count: int) -> str:
        """What an answer to so many items looks like, as a regular expression."""
        allowed = "|".join(map(re.escape, self.options)) if self.options else "[^\\n|]{1,120}"
        sure = rf" \| ({_SURE}|{_UNSURE})" if self.confidence else ""
        return r"\n".join(f"{number}: ({allowed}){sure}" for number in range(1, count + 1))

    def read(self, text: str, count: int) -> dict[int, tuple[str, bool]]:
        """Item number, from 1, to its answer and whether the model was sure. Of one item alone any form is read."""
        lines = numbered_lines(text, count)
        if count == 1 and not lines and text.strip():
            lines = {1: text}
        said = {number: self._read_line(line) for number, line in lines.items()}
        return {number: one for number, one in said.items() if one is not None}

    def _read_line(self, line: str) -> tuple[str, bool] | None:
        before, bar, behind = line.rpartition("|")
        answer = self._extract(before if bar else line)
        sure = bool(bar) and (last_line(behind) == _SURE)
        return None if answer is None else (answer, sure or not self.confidence)

    async def _work(self, job: Job, items: tuple[str, ...]) -> BatchResult:
        ballots = _Rounds(self, job, items)
        for number in range(1, self.rounds + 1):
            if not await ballots.round(f"round-{number}", ballots.order(number), self.batch_size):
                return ballots.result()
            if not any(item.said for item in ballots.items):
                break  # the model does not keep to the form: another order will not help
        await ballots.round("alone", ballots.unanswered(), 1)
        return ballots.result()


@dataclass
class _Item:
    """One item so far. said: per round with an answer, its number, the answer and whether the model was sure."""

    number: int
    text: str
    said: list[tuple[str, str, bool]] = field(default_factory=list)
    note: Note = "unanswered"

    @property
    def votes(self) -> dict[str, int]:
        return tally(answer for _, answer, _ in self.said)

    @property
    def agreed(self) -> str | None:
        """The answer of the last two, if it was one and sure."""
        if len(self.said) < 2:
            return None
        (_, one, sure), (_, other, also) = self.said[-2:]
        return one if one == other and sure and also else None

    def result(self, *, by_agreement: bool) -> ItemAnswer:
        if not self.said:
            return ItemAnswer(self.number, None, {}, 0.0, 0, self.note)
        sure_of = tally(answer for _, answer, sure in self.said if sure)
        best = max(leaders(self.votes), key=lambda answer: sure_of.get(answer, 0))
        best = (self.agreed if by_agreement else None) or best
        share = sure_of.get(best, 0) / len(self.said)
        return ItemAnswer(self.number, best, self.votes, share, len(self.said), "answered")


@dataclass(frozen=True)
class _Batch:
    """Items of one call. tokens_in, tokens_out: what it may take."""

    items: tuple[_Item, ...]
    prompt: str
    tokens_in: int
    tokens_out: int


class _Rounds:
    """The rounds of one run so far."""

    def __init__(self, method: BatchPrompt, job: Job, texts: Sequence[str]) -> None:
        self.method, self.job, self.model = method, job, method.model
        self.items = [_Item(number, text) for number, text in enumerate(texts)]
        self.replies: list[Reply] = []
        self.failures: list[CtxkitError] = []

    def order(self, number: int) -> list[_Item]:
        """The items that are open in this round; as given in the first, in another order in each further one."""
        left = self.method.rounds - number + 1
        found = [one for one in self.items if one.note != "too long" and not self._is_done(one, left)]
        if number > 1:
            random.Random(f"{self.method.seed}/{number}").shuffle(found)
        return found

    def unanswered(self) -> list[_Item]:
        return [one for one in self.items if not one.said and one.note != "too long"]

    def _is_done(self, item: _Item, rounds_left: int) -> bool:
        agreed = self.method.confidence and item.agreed is not None
        return agreed or is_decided(item.votes, rounds_left)

    async def round(self, name: str, waiting: list[_Item], size: int) -> bool:
        """Asks all that wait, in waves of batches. Whether a further round has a chance."""
        made = answered = 0
        while waiting:
            wave, waiting = self._wave(waiting, size)
            if not wave:
                break
            steps = [f"{name}-{made + n}-{digest_of(one.prompt)[:6]}" for n, one in enumerate(wave, 1)]
            works = [self._ask(one, step, name) for one, step in zip(wave, steps, strict=True)]
            results = await self.job.all(works, at_once=len(wave))
            made, answered = made + len(wave), answered + sum(results)
        for one in waiting:
            one.note = "not paid"
        if waiting:
            self.job.degraded(f"{name}: the run cannot pay for {len(waiting)} items")
        return not waiting and (answered > 0 or not made)

    def _wave(self, waiting: list[_Item], size: int) -> tuple[list[_Batch], list[_Item]]:
        """Batches to ask at once, within what the run can pay, and the items that still wait."""
        wave: list[_Batch] = []
        purse = Purse(self.job.run)
        while waiting and len(wave) < self.method.at_once:
            while waiting and not self._fits(self._batch(waiting[:1])):
                waiting[0].note = "too long"
                self.job.degraded(f"item {waiting[0].number + 1} is left out: it is longer than the window")
                waiting = waiting[1:]
            batch = self._largest(waiting, size, purse)
            if batch is None:
                break
            purse.take(batch.tokens_in, batch.tokens_out)
            wave.append(batch)
            waiting = waiting[len(batch.items) :]
        return wave, waiting

    def _largest(self, waiting: list[_Item], size: int, purse: Purse) -> _Batch | None:
        """As many of the first as one call can hold; None where not even one can be paid for."""
        even = -(-len(waiting) // -(-len(waiting) // size)) if waiting else 0
        best, low, high = None, 1, even
        middle = even
        while low <= high:
            batch = self._batch(waiting[:middle])
            if self._fits(batch) and purse.pays(batch.tokens_in, batch.tokens_out):
                best, low = batch, middle + 1
            else:
                high = middle - 1
            middle = (low + high) // 2
        return best

    def _batch(self, items: Sequence[_Item]) -> _Batch:
        prompt = self.method.prompt([one.text for one in items])
        tokens_in = count_prompt(as_request(prompt), self.model.counter)
        return _Batch(tuple(items), prompt, tokens_in, self.method.sampling.max_tokens * len(items))

    def _fits(self, batch: _Batch) -> bool:
        return batch.tokens_in + batch.tokens_out <= self.model.window_tokens

    async def _ask(self, batch: _Batch, step: str, name: str) -> bool:
        """Whether the model answered at all."""
        sampling = replace(self.method.sampling, max_tokens=batch.tokens_out)
        if self.method.constrained:
            form = {"type": "regex", "regex": self.method.form(len(batch.items))}
            sampling = replace(sampling, response_format=form)
        try:
            reply = await self.job.ask(
                self.model, batch.prompt, sampling, step=step, timeout_seconds=self.method.timeout_seconds
            )
        except (ModelError, CallTimeout, BudgetOverdrawn) as failure:
            self.failures.append(failure)
            self.job.degraded(f"{step} was left out: {type(failure).__name__}: {failure}")
            return False
        self.replies.append(reply)
        self._note(batch, reply, name)
        return True

    def _note(self, batch: _Batch, reply: Reply, name: str) -> None:
        text = reply.text
        if reply.finish_reason == "length" and len(batch.items) > 1:
            text = text[: text.rfind("\n") + 1]  # the last line may have lost its end
        said = self.method.read(text, len(batch.items))
        for number, item in enumerate(batch.items, 1):
            if number in said:
                item.said.append((name, *said[number]))
        missing = [item.number + 1 for number, item in enumerate(batch.items, 1) if number not in said]
        if missing:
            shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
            self.job.degraded(f"{name}: {len(missing)} of {len(batch.items)} items had no answer: {shown}")

    def result(self) -> BatchResult:
        if not any(item.said for item in self.items):
            self._refuse()
        answers = tuple(item.result(by_agreement=self.method.confidence) for item in self.items)
        count = self.model.counter.count
        lines = [f"1: {one.answer or ''}" + (f" | {_SURE}" if self.method.confidence else "") for one in answers]
        return BatchResult(
            answers,
            len(self.replies),
            sum(reply.prompt_tokens for reply in self.replies),
            sum(reply.completion_tokens for reply in self.replies),
            sum(self._batch([item]).tokens_in for item in self.items),
            sum(map(count, lines)),
        )

    def _refuse(self) -> None:
        """Raises why no item has an answer."""
        if self.failures:
            raise self.failures[0]
        alone = self._batch(self.items[:1])
        if all(item.note == "too long" for item in self.items):
            self.job.plan(self.model, [question(alone.prompt)], self.method.sampling)
        if any(item.note == "not paid" for item in self.items):
            left = self.job.run.left
            needed = alone.tokens_in + alone.tokens_out
            raise BudgetOverdrawn(
                f"{self.job.run.name!r} cannot pay for one item ({needed:,} tokens), left: {left}",
                run=self.job.run.name,
                limit="tokens",
                needed=needed,
                left=left.tokens or 0,
            )
        heard = self.replies[0].text if self.replies else ""
        raise AnswerMalformed(f"no answer can be read for any of {len(self.items)} items", answer=heard)
