"""Chains: workers and a manager at work on one source; one chain of them, or several that vote."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ctxkit.compression.text_compressor import TextCompressor
from ctxkit.protocols import Model
from ctxkit_agents.chain.answer import ChainAnswer, chain_answer
from ctxkit_agents.chain.evidence import Quote
from ctxkit_agents.chain.extractive import ExtractiveWorker, by_chunk
from ctxkit_agents.chain.layout import Layout, Order, WorkerRoom
from ctxkit_agents.chain.manager import Manager, majority
from ctxkit_agents.chain.orders import Passed, best_first, in_a_tree, in_sequence
from ctxkit_agents.chain.owed import Owed
from ctxkit_agents.chain.source import Chunk, Source
from ctxkit_agents.chain.workers import Faults, Workers
from ctxkit_agents.errors import AnswerMalformed, CallTimeout, WorkersFailed
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.task import Task


@dataclass(frozen=True)
class Chains:
    """What all chains of one run have in common.

    merge: units that become one in a tree. at_once: calls. extractor: quotes in place of the workers.
    """

    model: Model
    room: WorkerRoom
    manager: Manager
    source: Source
    layout: Layout
    compressor: TextCompressor
    faults: Faults
    owed: Owed
    merge: int
    at_once: int
    extractor: ExtractiveWorker | None = None

    @property
    def question(self) -> str:
        return self.layout.prompts.question

    async def answer(self, job: Job, order: Order, *, by_relevance: bool = False) -> ChainAnswer:
        """One chain. Raises WorkersFailed, and what the manager raises."""
        workers = Workers(self.model, self.room, self.source, self.layout, self.compressor, self.faults, self.owed)
        if order == "tree":
            passed = await in_a_tree(job, workers, self.layout.chunks, merge=self.merge, at_once=self.at_once)
        else:
            chunks = self._ordered(order, by_relevance)
            passed = await in_sequence(job, workers, chunks, early_exit=self.layout.prompts.early_exit)
        return await self._managed(job, passed, workers.peak_tokens)

    async def vote(self, job: Job) -> ChainAnswer:
        """Forward, backward and best first. A chain that fails does not vote; raises WorkersFailed where all do."""
        ways: Sequence[tuple[str, Order, bool]] = (
            ("forward", "forward", False),
            ("backward", "backward", False),
            ("by-relevance", "forward", True),
        )
        found = await job.all([self._path(job, *way) for way in ways], at_once=self.at_once)
        answers = [one for one in found if one is not None]
        if not answers:
            raise WorkersFailed(
                "no chain came to an answer", chunks=tuple(chunk.number for chunk in self.layout.chunks)
            )
        chosen = majority([one.text for one in answers])
        one = await self._decided(job, answers) if chosen is None else answers[chosen]
        unread = [chunk for chunk in self.layout.chunks if all(chunk in answer.unread for answer in answers)]
        return replace(
            one,
            workers=len(self.layout.chunks) - len(unread),
            unread=tuple(unread),
            peak_prompt_tokens=max(answer.peak_prompt_tokens for answer in [one, *answers]),
            votes=tuple(answer.text for answer in answers),
        )

    async def _path(self, job: Job, name: str, order: Order, by_relevance: bool) -> ChainAnswer | None:
        task = Task(name, lambda child: self.answer(child, order, by_relevance=by_relevance), method="Chain")
        try:
            return await job.spawn(task, name=name)
        except (WorkersFailed, AnswerMalformed, CallTimeout) as error:
            job.degraded(f"the chain {name!r} does not vote: {error}")
            return None

    async def _managed(self, job: Job, passed: Passed, peak_tokens: int) -> ChainAnswer:
        self.owed.begin(self.layout.manager)
        answered = await self.manager.answer(
            job,
            self.question,
            passed.unit,
            passed.quotes if self.extractor is None else await self._extracted(self.extractor),
            self.source,
            unit_tokens=self.layout.prompts.unit_tokens,
        )
        return chain_answer(
            answered,
            self.source,
            self.layout.chunks,
            unit=passed.unit,
            unread=passed.unread,
            peak_tokens=peak_tokens,
        )

    async def _extracted(self, extractor: ExtractiveWorker) -> tuple[Quote, ...]:
        room = self.manager.room
        args = (self.source, self.question, room.evidence_tokens, room.model.counter)
        return by_chunk(await asyncio.to_thread(extractor.quotes, *args), self.layout.chunks)

    async def _decided(self, job: Job, answers: Sequence[ChainAnswer]) -> ChainAnswer:
        """The manager's choice, by all the quotes that it saw."""
        ballot = "\n".join(f"{number}. {answer.text}" for number, answer in enumerate(answers, 1))
        quotes = sorted({quote for answer in answers for quote in self._quotes(answer)})
        answered = await self.manager.answer(
            job, self.question, ballot, quotes, self.source, unit_tokens=self.manager.room.ballot_tokens, decide=True
        )
        return chain_answer(
            answered,
            self.source,
            self.layout.chunks,
            unit=ballot,
            unread=(),
            peak_tokens=answered.prompt_tokens,
        )

    def _quotes(self, answer: ChainAnswer) -> list[Quote]:
        begins = [(one, self.source.begin(one.source)) for one in answer.evidence]
        return [Quote(begin + one.start, begin + one.end, one.worker) for one, begin in begins]

    def _ordered(self, order: Order, by_relevance: bool) -> list[Chunk]:
        chunks = list(self.layout.chunks)
        chunks = best_first(self.source, chunks, self.question) if by_relevance else chunks
        return chunks[::-1] if order == "backward" else chunks
