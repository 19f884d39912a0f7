"""ChainOfAgents: workers read a text too long for any of them, and a manager answers from what they hand on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from itertools import pairwise
from math import floor
from typing import get_args

from ctxkit.compression.router import by_question
from ctxkit.compression.text_compressor import TextCompressor
from ctxkit.protocols import Model
from ctxkit_agents.chain.answer import ChainAnswer, chain_answer
from ctxkit_agents.chain.chains import Chains
from ctxkit_agents.chain.extractive import ExtractiveWorker, by_chunk
from ctxkit_agents.chain.layout import PATHS, Layout, ManagerRoom, Order, WorkerRoom, affordable, merges, smaller
from ctxkit_agents.chain.manager import Manager
from ctxkit_agents.chain.owed import Owed
from ctxkit_agents.chain.prompts import WorkerPrompts
from ctxkit_agents.chain.source import Chunk, Source, SourceLike, read_source
from ctxkit_agents.chain.split import split
from ctxkit_agents.chain.workers import Faults
from ctxkit_agents.runtime.checkpoint import digest_of
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.task import Task

__all__ = ["ChainAnswer", "ChainOfAgents", "ExtractiveWorker"]

_COUNTS = ("unit_tokens", "evidence_tokens", "answer_tokens", "at_once")


@dataclass(frozen=True)
class ChainOfAgents:
    """Reads a text longer than the window piece by piece: each worker merges its piece into the notes, the
    communication unit, of the one before it; the manager answers from the last unit and the workers' quotes.

    Zhang et al., "Chain of Agents: Large Language Models Collaborating on Long-Context Tasks" (arXiv 2406.02818). The
    cap of the unit is enforced here; quotes, the tree and the early exit are additions.

    model: of the workers; an ExtractiveWorker reads without a model. manager: answers; the workers' model by default.
    worker_window_tokens: of each worker, and of the manager where it is the same model; the model's window by default.
    unit_tokens, quote_tokens: what a worker may write, notes and quotes; 0 quotes asks for none. A longer unit is
        compressed. Where the run cannot pay for the chain, units are made smaller before anything is asked.
    evidence_tokens, answer_tokens: of the manager's prompt and answer.
    order: "forward"; "backward"; "tree": all read at once, then `merge` units at a time become one; "vote": forward,
        backward and best first, three chains, and the manager decides where no two agree.
    by_relevance: the chunks in the order of their BM25 against the question, the best first ("forward") or last.
    early_exit: workers say whether their notes answer the question, and the first that says so is the last to read.
    retries: of a worker that fails (an error of the model, a time-out, no notes, or the same again and again), as far
        as the run can spare it. Then it is skipped, and the unit before it stands.
    skipped_share: of the workers that may be skipped; with more, WorkersFailed.
    compressor: for units that are too long; sentences by the question or rare words, without a model, by default.
    extractor: picks the quotes, so that workers write none; for models that do not copy well.
    at_once: calls at the same time. timeout_seconds: of a call.

    Raises ValueError for numbers and settings that contradict each other.
    """

    model: Model | ExtractiveWorker
    _: KW_ONLY
    manager: Model | None = None
    worker_window_tokens: int | None = None
    unit_tokens: int = 1024
    quote_tokens: int = 256
    evidence_tokens: int = 2048
    answer_tokens: int = 256
    order: Order = "forward"
    by_relevance: bool = False
    early_exit: bool = False
    merge: int = 2
    retries: int = 0
    skipped_share: float = 0.5
    compressor: TextCompressor | None = None
    extractor: ExtractiveWorker | None = None
    at_once: int = 8
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        low = [name for name in _COUNTS if getattr(self, name) < 1]
        if low:
            raise ValueError(f"`{low[0]}` must be at least 1, got {getattr(self, low[0])!r}")
        if self.quote_tokens < 0 or self.retries < 0 or self.merge < 2:
            given = f"{self.quote_tokens!r}, {self.retries!r} and {self.merge!r}"
            raise ValueError(f"`quote_tokens` and `retries` must be 0 or more and `merge` at least 2, got {given}")
        if not 0 <= self.skipped_share <= 1:
            raise ValueError(f"`skipped_share` must be in [0, 1], got {self.skipped_share!r}")
        if self.order not in get_args(Order):
            raise ValueError(f"`order` must be one of {', '.join(get_args(Order))}, got {self.order!r}")
        if self.by_relevance and self.order not in ("forward", "backward"):
            raise ValueError(f"`by_relevance` needs the order forward or backward, got {self.order!r}")
        if self.early_exit and self.order == "tree":
            raise ValueError("`early_exit` needs workers that read one after the other, and in a tree all read at once")
        self._check_models()

    def _check_models(self) -> None:
        window = self.worker_window_tokens
        if window is not None and window < 1:
            raise ValueError(f"`worker_window_tokens` must be at least 1 or None, got {window!r}")
        if self._manager.room.window_tokens <= self.answer_tokens:
            raise ValueError(f"`answer_tokens` must be below the manager's window, got {self.answer_tokens!r}")
        extracts = isinstance(self.model, ExtractiveWorker)
        if extracts and (self.order != "forward" or self.by_relevance or self.early_exit or self.extractor is not None):
            needless = "`order`, `by_relevance`, `early_exit` or `extractor`"
            raise ValueError(f"an ExtractiveWorker hands nothing on, so it takes no {needless}")

    def task(self, source: SourceLike, *, question: str = "") -> Task[ChainAnswer]:
        """Answers the question by the source; without a question, summarises it.

        source: a text, Parts or search hits, or chat messages.

        The run raises BudgetOverdrawn before the first call where it cannot pay for the whole chain, BudgetInfeasible
        where a window has no room for any text, WorkersFailed, AnswerMalformed where the manager says nothing and
        there is no unit, and what the manager's model raises. Raises ValueError for a source without text, and for
        settings that need a question where there is none.
        """
        question = question.strip()
        if not question and (self.order == "vote" or self.by_relevance or self.early_exit):
            raise ValueError("`order='vote'`, `by_relevance` and `early_exit` need a `question`")
        read = read_source(source)
        return Task("chain", lambda job: self._work(job, read, question), method=type(self).__name__)

    async def _work(self, job: Job, source: Source, question: str) -> ChainAnswer:
        if source.unread:
            job.degraded(f"images and files are not read, and there are some in {', '.join(source.unread)}")
        if isinstance(self.model, ExtractiveWorker):
            return await self._extracted(job, self.model, source, question)
        room = WorkerRoom(self.model.counter, self._window, handed=self.order != "tree")
        layout = await self._layout(job, room, source, question)
        faults = Faults(self.retries, floor(self.skipped_share * len(layout.chunks)), self.timeout_seconds)
        chains = Chains(
            self.model,
            room,
            self._manager,
            source,
            layout,
            self._compressor,
            faults,
            Owed(layout.needed),
            self.merge,
            self.at_once,
            self.extractor,
        )
        if self.order == "vote":
            return await chains.vote(job)
        return await chains.answer(job, self.order, by_relevance=self.by_relevance)

    async def _layout(self, job: Job, room: WorkerRoom, source: Source, question: str) -> Layout:
        """What the run can pay for, decided before the first call; a run that is resumed keeps to it."""
        quote_tokens = 0 if self.extractor is not None else self.quote_tokens
        first = WorkerPrompts(question, self.unit_tokens, quote_tokens, self.early_exit)
        laid: dict[int, Layout] = {}

        def layouts() -> Iterator[Layout]:
            for prompts in smaller(first):
                yield laid.setdefault(prompts.unit_tokens, self._laid(room, source, prompts))

        async def solve() -> int:
            found = await asyncio.to_thread(affordable, layouts(), job.run)
            return found.prompts.unit_tokens

        asked = [digest_of(source.text), question, self.order, self.unit_tokens, self._window]
        unit_tokens = (await job.once("layout", asked, solve)).value
        layout = laid.get(unit_tokens) or self._laid(room, source, first.with_units_of(unit_tokens))
        if unit_tokens < self.unit_tokens:
            job.degraded(f"units have {unit_tokens:,} tokens, not {self.unit_tokens:,}: the run cannot pay for more")
        return affordable([layout], job.run)

    def _laid(self, room: WorkerRoom, source: Source, prompts: WorkerPrompts) -> Layout:
        unit, managing = prompts.unit_tokens, self._manager.room
        chunks = room.chunks(source, prompts)
        readings = tuple(room.cost(source, prompts, chunk) for chunk in chunks)
        manager = managing.cost(prompts.question, unit)
        if self.order == "vote":
            decision = managing.cost(prompts.question, managing.ballot_tokens, decide=True)
            return Layout(prompts, chunks, readings, manager, (*readings * (PATHS - 1), *[manager] * 2, decision))
        groups = merges(len(chunks), self.merge) if self.order == "tree" else []
        return Layout(prompts, chunks, readings, manager, tuple(room.merging(prompts, size) for size in groups))

    async def _extracted(self, job: Job, worker: ExtractiveWorker, source: Source, question: str) -> ChainAnswer:
        manager = self._manager
        cost = manager.room.cost(question, 0)
        counter = manager.room.model.counter
        affordable([Layout(WorkerPrompts(question, 1, 0), (), (), cost)], job.run)
        cuts = split(source.text, source.bounds, self._window, counter)
        chunks = tuple(
            Chunk(number, start, end, source.spans(start, end), counter.count(source.text[start:end]))
            for number, (start, end) in enumerate(pairwise(cuts), 1)
        )
        found = await asyncio.to_thread(worker.quotes, source, question, self.evidence_tokens, counter)
        answered = await manager.answer(job, question, "", by_chunk(found, chunks), source, unit_tokens=1)
        return chain_answer(answered, source, chunks, unit="", unread=(), peak_tokens=0)

    @property
    def _answering(self) -> Model:
        """The manager's model."""
        model = self.model if self.manager is None else self.manager
        if isinstance(model, ExtractiveWorker):
            raise ValueError("an ExtractiveWorker cannot answer: give `manager` a model")
        return model

    @property
    def _window(self) -> int:
        """Tokens of a worker's window; of the manager's where no model reads."""
        model = self._answering if isinstance(self.model, ExtractiveWorker) else self.model
        return min(
            model.window_tokens, model.window_tokens if self.worker_window_tokens is None else self.worker_window_tokens
        )

    @cached_property
    def _manager(self) -> Manager:
        window = self._window if self.manager is None else self.manager.window_tokens
        room = ManagerRoom(self._answering, window, self.evidence_tokens, self.answer_tokens)
        return Manager(room, self._compressor, self.timeout_seconds)

    @cached_property
    def _compressor(self) -> TextCompressor:
        return by_question() if self.compressor is None else self.compressor
