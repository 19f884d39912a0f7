"""CipherDebate: agents that read each other's answers as beliefs, before a token is chosen."""

from __future__ import annotations

import asyncio
import base64
import functools
import threading
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from ctxkit.context import Budget, Ticket
from ctxkit.protocols import Model, Reply
from ctxkit_agents.debate.belief import Belief, check_kept
from ctxkit_agents.debate.debate import Agent, Debate, Said, Statement
from ctxkit_agents.debate.prompts import debate_parts, part_id
from ctxkit_agents.debate.splice import Spliced, splice
from ctxkit_agents.debate.vocabulary import check_same
from ctxkit_agents.errors import CallTimeout, CapabilityMissing
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.replies import reply_from_json, reply_to_json

if TYPE_CHECKING:
    from ctxkit.models.local import LocalModel
    from ctxkit_agents.debate.speaker import Speaker, Spoken

_STEP = "speak"


@dataclass(frozen=True)
class CipherDebate(Debate):
    """CIPHER (arXiv 2310.06272): the debate of `TextDebate` without tokens, between local models of one tokenizer.

    At each position an agent feeds itself the average of its input embeddings under softmax(logits / temperature), so
    nothing is drawn and nothing of its doubt is lost; what the others read is that, too, as a `Belief`: of each
    position the likeliest tokens. It ends where the likeliest token ends an answer, at `max_tokens`, or at a string of
    `stop` in its nearest tokens. Texts, for people and for `answer`, are the nearest tokens of the beliefs.

    partial: all weight on a token that has this probability (0.85 in the paper's ablation); None averages always.
    entries, mass: what beliefs keep of each position, see `Belief.of`.

    The template is that of TextDebate, and the fields, the end and the faults those of `Debate`. At temperature 0 each
    answer is, token for token, the model's greedy answer to the prompt in which the others' tokens stand where their
    beliefs do. That is TextDebate's prompt where the text of an answer is tokenised as it was written, as a rule.

    Where a window is too small, the beliefs of the others lose their first positions before one's own does, and the run
    says so. The agents of a round take turns in the engine, pass by pass. Raises CapabilityMissing where a model has no
    "logits" and "embeds", TokenizerMismatch where two have not one vocabulary; their weights may differ.
    """

    partial: float | None = None
    entries: int = 32
    mass: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.partial is not None and not 0 < self.partial <= 1:
            raise ValueError(f"`partial` must be in (0, 1] or None, got {self.partial!r}")
        check_kept(self.entries, self.mass)
        first, *others = (_local(agent.model) for agent in self.agents)
        for other in others:
            if other is not first:
                check_same(first.name, first.counter.tokenizer, other.name, other.counter.tokenizer)

    @cached_property
    def _speakers(self) -> dict[int, Speaker]:
        """By the model's identity; each looks at its table once."""
        from ctxkit_agents.debate.speaker import Speaker

        models = {id(agent.model): _local(agent.model) for agent in self.agents}
        return {key: Speaker(model, entries=self.entries, mass=self.mass) for key, model in models.items()}

    async def _speak(self, job: Job, agent: Agent, number: int, question: str, said: Said) -> Statement:
        prompt = self._prompt(job, agent, question, said)
        began = time.monotonic()
        done = await job.once(_STEP, self._asked(agent, prompt), functools.partial(self._paid, job, agent, prompt))
        reply = reply_from_json(done.value["reply"])
        if done.replayed:
            with job.run.reserve(tokens_in=reply.prompt_tokens, tokens_out=reply.completion_tokens) as ticket:
                ticket.settle(reply)
        job.tell(_STEP, reply, prompt=question, took=time.monotonic() - began, replayed=done.replayed)
        belief = Belief.from_bytes(base64.b64decode(done.value["belief"]))
        return Statement(agent.number, reply.text, self.answer(reply.text), belief)

    def _prompt(self, job: Job, agent: Agent, question: str, said: Said) -> Spliced:
        """The debate so far, with as much of the beliefs as the window and the run have room for."""
        texts = {one.agent: one.text for one in said.values()}
        parts = debate_parts(question, texts, agent.number, self.instruction)
        beliefs = {part_id(one.agent): one.belief for one in said.values() if one.belief is not None}
        whole = splice(_local(agent.model), parts, beliefs)
        budget = job.affordable(Budget(agent.model.window_tokens, self.max_tokens, run=job.run))
        prompt = whole.fitted(budget, part_id(agent.number))
        if prompt.tokens < whole.tokens:
            lengths = zip(prompt.owners, map(len, prompt.beliefs), map(len, whole.beliefs), strict=True)
            told = [f"{left:,} of {all_of_it:,} of {owner}" for owner, left, all_of_it in lengths if left < all_of_it]
            job.degraded(f"there is room for the last positions only: {', '.join(told)}")
        return prompt

    def _asked(self, agent: Agent, prompt: Spliced) -> dict[str, Any]:
        """What decides the answer, as JSON."""
        return {
            "model": agent.model.name,
            "texts": prompt.texts,
            "beliefs": [_base64(one) for one in prompt.beliefs],
            "sampling": asdict(self._sampling(agent)),
            "partial": self.partial,
            "kept": [self.entries, self.mass],
        }

    async def _paid(self, job: Job, agent: Agent, prompt: Spliced) -> dict[str, Any]:
        with job.run.reserve(
            tokens_in=prompt.tokens, tokens_out=self.max_tokens, window_tokens=agent.model.window_tokens
        ) as ticket:
            if ticket.degraded:
                job.degraded(f"{_STEP} had {ticket.tokens_out:,} tokens for its answer, not {self.max_tokens:,}")
            spoken = await self._in_thread(agent, prompt, ticket)
        return {"reply": reply_to_json(_reply(agent, prompt, spoken)), "belief": _base64(spoken.belief)}

    async def _in_thread(self, agent: Agent, prompt: Spliced, ticket: Ticket) -> Spoken:
        """Speaks in a thread, which a cancellation or a time-out stops after its pass; what it computed is paid for."""
        from ctxkit_agents.debate.mixing import Mixing

        stopped = threading.Event()
        speak = functools.partial(
            self._speakers[id(agent.model)].speak,
            prompt.pieces,
            Mixing(self._sampling(agent), self.partial),
            max_tokens=ticket.tokens_out,
            stopped=stopped.is_set,
        )
        doing = asyncio.ensure_future(asyncio.to_thread(speak))
        try:
            in_time, _ = await asyncio.wait({doing}, timeout=self.timeout_seconds)
        finally:
            stopped.set()
            spoken = await doing
            ticket.settle(_reply(agent, prompt, spoken))
        if not in_time:
            raise CallTimeout(f"{agent.model.name!r} did not answer within {self.timeout_seconds:g} seconds")
        return spoken


def _local(model: Model) -> LocalModel:
    """Raises CapabilityMissing."""
    for capability in ("logits", "embeds"):
        if capability not in model.capabilities:
            raise CapabilityMissing(
                f"{model.name!r} has no {capability!r}, which beliefs need; use a LocalModel, or TextDebate",
                capability=capability,
            )
    return cast("LocalModel", model)


def _reply(agent: Agent, prompt: Spliced, spoken: Spoken) -> Reply:
    return Reply(spoken.text, spoken.finish_reason, prompt.tokens, spoken.tokens, agent.model.name)


def _base64(belief: Belief) -> str:
    return base64.b64encode(belief.to_bytes()).decode()
