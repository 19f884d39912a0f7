"""TextDebate: agents that read each other's answers as text."""

from __future__ import annotations

from dataclasses import dataclass

from ctxkit.compression import standard
from ctxkit.context import Plan
from ctxkit_agents.debate.debate import Agent, Debate, Said, Statement
from ctxkit_agents.debate.prompts import debate_parts
from ctxkit_agents.runtime.job import Job


@dataclass(frozen=True)
class TextDebate(Debate):
    """Multi-agent debate in text (arXiv 2305.14325): any models, also several and on different servers.

    Each agent answers; then, round by round, each reads what all said last and answers again. The fields, the end and
    the faults are those of `Debate`. seed: of the first answer; the others have the numbers after it.

    Where a window is too small for all answers, those of the others are shortened or left out before one's own, and the
    run says so.
    """

    seed: int = 0

    async def _speak(self, job: Job, agent: Agent, number: int, question: str, said: Said) -> Statement:
        texts = {one.agent: one.text for one in said.values()}
        sampling = self._sampling(agent, self.seed + (number - 1) * len(self.temperatures) + agent.number - 1)
        parts = debate_parts(question, texts, agent.number, self.instruction)
        plan = job.plan(agent.model, parts, sampling, compressors=standard())
        _tell_what_is_missing(job, plan)
        reply = await job.ask(agent.model, plan, sampling, step="speak", timeout_seconds=self.timeout_seconds)
        return Statement(agent.number, reply.text, self.answer(reply.text))


def _tell_what_is_missing(job: Job, plan: Plan) -> None:
    short = [one for one in plan.decisions if one.level != "full"]
    if short:
        told = ", ".join(f"{one.tokens:,} of {one.full_tokens:,} tokens of {one.part.title!r}" for one in short)
        job.degraded(f"there is room for {told}")
