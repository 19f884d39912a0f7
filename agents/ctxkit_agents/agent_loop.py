"""The loop of an agent: plan, ask, use tools, until there is an answer."""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from ctxkit.context import Budget, Plan
from ctxkit.context.expand import EXPAND_NAME
from ctxkit.errors import BudgetInfeasible, BudgetOverdrawn
from ctxkit.protocols import ChatMessage, Reply, Sampling
from ctxkit.protocols import Tool as ToolSchema
from ctxkit.session import Session
from ctxkit.session.cache import CacheReport
from ctxkit_agents.agent_protocol import Said, protocol, reminder
from ctxkit_agents.errors import AnswerMalformed, StepsExhausted
from ctxkit_agents.result_search import FIND_NAME, result_search
from ctxkit_agents.runtime.checkpoint import digest_of
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.tool_use import Call, ToolUse, say, use

if TYPE_CHECKING:
    from ctxkit_agents.agent import Agent, AgentAnswer

_LAST = "what is left pays for one more answer, but not for more steps"
_FINISH = "Use no more tools. Give your answer now, from what you know so far."


class AgentLoop:
    """One run of an agent. A run that is resumed goes the same way: it decides by recorded steps alone."""

    def __init__(self, agent: Agent, job: Job, messages: Sequence[ChatMessage]) -> None:
        self.agent = agent
        self.job = job
        self.protocol = protocol(agent.protocol)
        self.tools = dict(agent.toolbox)
        if agent.search_results and self.tools:
            self.tools[FIND_NAME] = result_search(lambda: self.session.messages)
        self.session = _session(agent, job, messages, [tool.schema for tool in self.tools.values()])
        self.steps = 0
        self.plan: Plan | None = None
        self.uses: list[ToolUse] = []
        self.cache: list[CacheReport] = []
        self._same: Tally[str] = Tally()
        self._given_results = sum(message["role"] == "tool" for message in messages)
        self._unnamed = 0
        self._finishing = ""

    async def run(self) -> AgentAnswer:
        why, reminded = "", False
        while True:
            if self.steps == self.agent.max_steps:
                why = why or f"{self.steps:,} steps brought no answer"
            reply, said = await self._ask(why)
            if self._finishing:
                return self._final(reply, said)
            if said.calls:
                why, reminded = await self._use(said), False
            elif not said.problem:
                return self._answer(said.text, reply)
            elif reminded:
                raise AnswerMalformed(
                    f"{self.agent.model.name!r} was reminded and answered wrongly again: {said.problem}",
                    answer=reply.text,
                )
            else:
                reminded = True
                self.session.add(*reminder(said, reply), pinned=True)

    # --- asking ------------------------------------------------------------------------------------------------

    async def _ask(self, why: str) -> tuple[Reply, Said]:
        """The next step. why: it is to be the last one, and why; "" where it need not be."""
        if why and self.agent.on_exhausted == "raise":
            raise StepsExhausted(f"{self.job.path}: {why}")
        self.steps += 1
        plan = await self._planned(why)
        self.cache.append(self.session.cache)
        self._tell_unseen(plan)
        reply = await self.job.ask(
            self.agent.model,
            self.protocol.prompt(plan),
            self._sampling(plan),
            step=f"step {self.steps}",
            timeout_seconds=self.agent.timeout_seconds,
            retries=self.agent.retries,
        )
        return reply, self.protocol.read(reply, self.steps)

    def _sampling(self, plan: Plan) -> Sampling:
        sampling = replace(self.agent.sampling, max_tokens=self.session.budget.reserve_tokens)
        if self._finishing and plan.tools and self.agent.protocol == "tools":
            return replace(sampling, tool_choice="none")  # the tools stay, and with them what a cache knows
        return sampling

    async def _planned(self, why: str) -> Plan:
        """The next prompt, within the window and within what the run can pay for now.

        What it could pay for is recorded, so that a run that is resumed with other limits goes the same way. A step
        that could not be planned is not: with more to pay with, it can be.
        """

        async def make() -> list[Any]:
            budget = Budget(self.agent.window, self.agent.answer_tokens, run=self.job.run).affordable()
            last = why or (_LAST if self._is_last(budget) else "")
            await self._plan(budget.window_tokens, budget.reserve_tokens, last)
            return [budget.window_tokens, budget.reserve_tokens, last]

        done = await self.job.once(f"budget {self.steps}", [self.agent.window, self.agent.answer_tokens, why], make)
        if done.replayed:
            await self._plan(*done.value)
        return cast(Plan, self.plan)

    def _is_last(self, budget: Budget) -> bool:
        run = self.job.run
        if run.overdraft != "degrade" or self.agent.on_exhausted != "answer":
            return False
        left, prompt, answer = run.left, self.plan.prompt_tokens if self.plan else 0, budget.reserve_tokens
        needs = ((left.tokens, prompt + answer), (left.tokens_in, prompt), (left.tokens_out, answer))
        return left.calls == 1 or any(have is not None and have < 2 * need for have, need in needs)

    async def _plan(self, window_tokens: int, reserve_tokens: int, last: str) -> None:
        if last:
            self._finishing = last
            self.job.degraded(f"{last}; it was asked for an answer without tools")
            if self.agent.protocol == "json" or self.session.messages[-1]["role"] != "user":
                self.session.add({"role": "user", "content": _FINISH}, pinned=True)
        self.session.budget = Budget(window_tokens, reserve_tokens)
        try:
            self.plan = await asyncio.to_thread(self.session.plan)
        except BudgetInfeasible as error:
            if window_tokens == self.agent.window:
                raise
            raise BudgetOverdrawn(
                f"{self.job.run.name!r} can pay for {window_tokens:,} tokens, and the smallest prompt of the next step "
                f"takes {error.minimum:,} with its answer. Raise its limits and resume from the checkpoint.",
                run=self.job.run.name,
                limit="tokens",
                needed=error.minimum,
                left=window_tokens,
            ) from error

    def _tell_unseen(self, plan: Plan) -> None:
        """Says it where the model cannot see its tools, and where results went out of sight since the step before."""
        if self.steps == 1 and plan.tools and not _shows_tools(plan, self.session):
            self.job.degraded(f'the chat template of {self.agent.model.name} shows no tools; `protocol="json"` does')
        unnamed = len(self.uses) + self._given_results - sum(message.role == "tool" for message in plan.messages)
        if unnamed > self._unnamed:
            self.job.degraded(f"the window has no room to name the {unnamed:,} oldest results any more")
        self._unnamed = max(unnamed, self._unnamed)

    # --- tools -------------------------------------------------------------------------------------------------

    async def _use(self, said: Said) -> str:
        """Makes the calls and adds them with their results. Why the agent is to stop, "" where it goes on."""
        made = (self._result(call, place) for place, call in enumerate(said.calls))
        uses = await self.job.all(made, at_once=self.agent.parallel_calls)
        uses, why = self._pointed_out(uses)
        calls = [call.to_dict() for call in said.calls]
        self.session.add(
            {"role": "assistant", "content": said.text or None, "tool_calls": calls},
            *(one.to_message() for one in uses),
        )
        self.uses += uses
        return why

    async def _result(self, call: Call, place: int) -> ToolUse:
        if place >= self.agent.calls_per_step:
            text = f"Error: not made: an answer may have {self.agent.calls_per_step:,} calls."
            used = ToolUse(self.steps, call, text, failed=True)
        elif call.name == EXPAND_NAME:
            text = str(self.session.answer_expand([call.to_dict()])[0]["content"])
            used = ToolUse(self.steps, call, text, failed=text.startswith("Error: "))
        else:
            return await use(self.job, self.tools, call, self.steps, place)
        say(self.job, used, f"tool {self.steps}.{place + 1}", 0.0)
        return used

    def _pointed_out(self, uses: Sequence[ToolUse]) -> tuple[list[ToolUse], str]:
        """The uses, one that brought the same once too often with a note; and why to stop where that did not help."""
        told, why, limit = list(uses), "", self.agent.stop_after_same_calls
        for place, used in enumerate(uses if limit is not None else ()):
            key = digest_of([used.call.name, used.call.canonical, used.result])
            self._same[key] += 1
            if self._same[key] == limit:
                note = f"[You made this call {limit:,} times and this is all it brings. Do something else, or answer.]"
                told[place] = replace(used, result=f"{used.result}\n\n{note}")
            elif self._same[key] > (limit or 0):
                why = f"the same call of {used.call.name!r} brought the same {self._same[key]:,} times"
        return told, why

    # --- the end -----------------------------------------------------------------------------------------------

    def _final(self, reply: Reply, said: Said) -> AgentAnswer:
        """The answer to the last step. Raises StepsExhausted where there is none."""
        text = said.text or ("" if said.calls else reply.text)
        if not text.strip():
            raise StepsExhausted(f"{self.job.path}: {self._finishing}; asked for an answer without tools, it gave none")
        return self._answer(text, reply)

    def _answer(self, text: str, reply: Reply) -> AgentAnswer:
        from ctxkit_agents.agent import AgentAnswer

        if reply.finish_reason == "length":
            self.job.degraded(f"the answer was cut off at {reply.completion_tokens:,} tokens")
        messages = (*self.session.messages, {"role": "assistant", "content": text})
        plan = cast(Plan, self.plan)  # an answer came of one
        return AgentAnswer(text, self.steps, tuple(self.uses), messages, tuple(self.cache), plan)


def _session(agent: Agent, job: Job, messages: Sequence[ChatMessage], schemas: Sequence[ToolSchema]) -> Session:
    """The session with the task in it. Its id is of the task: a resumed run finds its originals, no other run does."""
    how = protocol(agent.protocol)
    session = Session(
        budget=Budget(agent.window, agent.answer_tokens),
        counter=how.counter(agent.model.counter),
        tools=schemas,
        compressors=agent.compressors,
        prices=agent.prices,
        target=agent.target,
        expected_turns=agent.expected_turns,
        result_tokens=agent.new_result_tokens,
        keep_results=True,
        store=agent.store,
        session_id=digest_of([job.path, [dict(message) for message in messages]]),
    )
    for place, message in enumerate(messages):
        session.add(message, pinned=place == _task_place(messages))
    return session


def _task_place(messages: Sequence[ChatMessage]) -> int:
    return max(place for place, message in enumerate(messages) if message["role"] == "user")


def _shows_tools(plan: Plan, session: Session) -> bool:
    return session.counter.render(plan.messages).tokens != plan.prompt_tokens
