"""Workers: agents that read a chunk each and hand a unit on, and agents that merge units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ctxkit.compression.text_compressor import TextCompressor
from ctxkit.context import Amounts
from ctxkit.errors import ModelError
from ctxkit.protocols import ChatMessage, Model, Sampling
from ctxkit_agents.chain.evidence import Quote, verified
from ctxkit_agents.chain.layout import Layout, WorkerRoom
from ctxkit_agents.chain.owed import Owed
from ctxkit_agents.chain.prompts import tokens_of
from ctxkit_agents.chain.source import Chunk, Source
from ctxkit_agents.chain.unit import Written, capped, is_loop, read_answer
from ctxkit_agents.errors import CallTimeout, WorkersFailed
from ctxkit_agents.runtime.job import Job

_AGAIN_PENALTY = 0.5  # of a second try: greedy, it would end as the first did


@dataclass(frozen=True)
class Faults:
    """What is done about workers that fail. retries: of each. most_skipped: of all; one more ends the run."""

    retries: int
    most_skipped: int
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """What a worker leaves."""

    unit: str
    quotes: tuple[Quote, ...]
    answered: bool


@dataclass(frozen=True, slots=True)
class _Fault:
    why: str
    error: Exception | None = None


@dataclass
class Workers:
    """The workers of one chain in one run. skipped: numbers of the chunks whose workers failed.

    peak_tokens: of the longest prompt so far.
    """

    model: Model
    room: WorkerRoom
    source: Source
    layout: Layout
    compressor: TextCompressor
    faults: Faults
    owed: Owed
    skipped: list[int] = field(default_factory=list)
    peak_tokens: int = 0

    async def read(self, job: Job, chunk: Chunk, unit: str) -> Note | None:
        """The note of one worker; None where it was skipped. Raises WorkersFailed where too many were."""
        prompts, name = self.layout.prompts, f"worker {chunk.number}"
        messages = self._fitting(job, chunk, unit)
        cost = self.layout.readings[chunk.number - 1]
        written = await self._asked(job, messages, prompts.answer_tokens, f"worker-{chunk.number}", cost)
        if isinstance(written, _Fault):
            self._skip(job, chunk, written)
            return None
        quotes, missing = verified(written.quotes, self.source, chunk)
        if missing:
            job.degraded(f"{missing} of {len(written.quotes)} quotes of {name} are not in its chunk and were dropped")
        if not written.unit and not quotes:
            self._skip(job, chunk, _Fault("it took no notes"))
            return None
        kept = self._capped(job, written.unit, prompts.unit_tokens, name) if written.unit else unit
        return Note(kept, tuple(quotes), written.answered)

    async def merge(self, job: Job, units: Sequence[str], step: str) -> str:
        """Several units in one. Where the worker fails, as much of each of them as there is room for."""
        prompts = self.layout.prompts
        cost = self.room.merging(prompts, len(units))
        written = await self._asked(job, prompts.merging(units), prompts.unit_tokens, step, cost)
        unit = "" if isinstance(written, _Fault) else written.unit
        if not unit:
            why = written.why if isinstance(written, _Fault) else "it said nothing"
            job.degraded(f"{step} failed ({why}); its units were joined instead")
        return self._capped(job, unit or "\n\n".join(units), prompts.unit_tokens, step)

    def _skip(self, job: Job, chunk: Chunk, fault: _Fault) -> None:
        job.degraded(f"worker {chunk.number} was skipped: {fault.why}")
        self.skipped.append(chunk.number)
        if len(self.skipped) > self.faults.most_skipped:
            raise WorkersFailed(
                f"{len(self.skipped)} of {len(self.layout.chunks)} workers failed, the last because {fault.why}. At "
                f"most {self.faults.most_skipped} may: see `skipped_share`.",
                chunks=tuple(sorted(self.skipped)),
            ) from fault.error

    async def _asked(
        self, job: Job, messages: Sequence[ChatMessage], tokens_out: int, step: str, cost: Amounts
    ) -> Written | _Fault:
        """What a worker wrote, at the first try or at a later one."""
        self.owed.begin(cost)
        sampling = Sampling(max_tokens=tokens_out)
        for _ in range(self.faults.retries):
            written = await self._once(job, messages, sampling, step)
            if not isinstance(written, _Fault):
                return written
            if not self.owed.can_spare(cost, job.run):
                job.degraded(f"{step} is not asked again: the run cannot spare the tokens")
                return written
            sampling = replace(sampling, frequency_penalty=_AGAIN_PENALTY)
        return await self._once(job, messages, sampling, step)

    async def _once(self, job: Job, messages: Sequence[ChatMessage], sampling: Sampling, step: str) -> Written | _Fault:
        seconds = self.faults.timeout_seconds
        try:
            reply = await job.ask(self.model, messages, sampling, step=step, timeout_seconds=seconds)
        except (ModelError, CallTimeout) as error:
            return _Fault(f"{type(error).__name__}: {error}", error)
        self.peak_tokens = max(self.peak_tokens, reply.prompt_tokens)
        written = read_answer(reply.text)
        if not written.unit and not written.quotes:
            return _Fault("it said nothing")
        if is_loop(written.unit):
            return _Fault("it says the same again and again")
        if reply.finish_reason == "length":
            job.degraded(f"{step} was cut off after {reply.completion_tokens:,} tokens")
        return written

    def _fitting(self, job: Job, chunk: Chunk, unit: str) -> list[ChatMessage]:
        """The worker's prompt, in its window for certain: where texts grow when put together, the unit shrinks."""
        prompts, counter = self.layout.prompts, self.room.counter
        text = self.source.text[chunk.start : chunk.end]
        limit = self.room.window_tokens - prompts.answer_tokens
        messages = prompts.reading(text, unit)
        allowed = counter.count(unit)
        while (over := tokens_of(messages, counter) - limit) > 0 and unit:
            allowed = max(0, min(allowed, counter.count(unit)) - over)
            unit = capped(unit, allowed, counter, self.compressor, prompts.question)
            job.degraded(f"the unit that worker {chunk.number} is handed was cut to {allowed:,} tokens")
            messages = prompts.reading(text, unit)
        return messages

    def _capped(self, job: Job, unit: str, tokens: int, name: str) -> str:
        size = self.room.counter.count(unit)
        if size <= tokens:
            return unit
        job.degraded(f"the unit of {name} was compressed from {size:,} to at most {tokens:,} tokens")
        return capped(unit, tokens, self.room.counter, self.compressor, self.layout.prompts.question)
