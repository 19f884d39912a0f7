"""Turns: a chat request planned, alone or as the next turn of a session, and remembered when it was answered."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ctxkit.context import Plan
from ctxkit.protocols import ChatMessage, Model, Reply, Sampling
from ctxkit.server.answering import Item, Piece, answers
from ctxkit.server.chaining import chained
from ctxkit.server.chat_request import ChatRequest
from ctxkit.server.labels import Trust, marked, stricter, unmarked
from ctxkit.server.noted import noted
from ctxkit.server.planning import (
    budget_of,
    is_cut,
    planned,
    refuse_if_cut,
    report,
    tokens_left_out,
    tools_of,
)
from ctxkit.server.problems import Problem, unsupported
from ctxkit.server.service import Service
from ctxkit.server.sessions.conversations import Turn

_SHORT_MESSAGES, _SHORT_CHARACTERS = 8, 2_000


@dataclass(frozen=True)
class Planned:
    """plan: the prompt. report: `x_ctxkit` of the answer. trust: what an answer to it may do.

    turn: of a session, None without one.

    chained: the messages that a chain is to read, because they do not fit; None where the plan is the prompt.
    """

    plan: Plan
    report: Mapping[str, Any]
    trust: Trust
    turn: Turn | None = None
    chained: tuple[ChatMessage, ...] | None = None

    async def answers(self, model: Model, sampling: Sampling, n: int) -> AsyncGenerator[Item]:
        """The answers' pieces as they come, and replies without what the trust withholds."""
        async with aclosing(self._made(model, sampling, n)) as items:
            async for at, item in items:
                if isinstance(item, Piece):
                    yield at, replace(item, tool_calls=()) if self.trust.refuses_tools else item
                else:
                    yield at, self.trust.screened(item)

    def _made(self, model: Model, sampling: Sampling, n: int) -> AsyncGenerator[Item]:
        if self.chained is None:
            return answers(model, self.plan, sampling, n)
        return chained(model, self.chained, sampling, self.plan.budget.window_tokens)


async def plan_turn(
    service: Service,
    owner: str,
    model: Model,
    body: ChatRequest,
    sampling: Sampling,
    ignored: Sequence[str] = (),
    *,
    dry: bool = False,
) -> Planned:
    """The request's prompt. dry: it is only looked at. Where planning takes long it is done in a thread of its own.

    Raises BudgetInfeasible (under `overflow="refuse"` wherever something would be left out), PartError, StoreError,
    SessionNotFound, Problem.
    """
    plan = partial(_plan_request, service, owner, model, body, sampling, ignored, dry)
    return plan() if _is_short(service, body) else await service.in_thread(plan)


def _is_short(service: Service, body: ChatRequest) -> bool:
    """Whether planning is a millisecond or two. A thread that takes turns with that of the events makes all streams
    wait longer than that: each of its turns may be 5 ms."""
    passages = isinstance(body.ctxkit.index, str) or (body.ctxkit.index and service.index is not None)
    if passages or body.ctxkit.session is not None:
        return False
    if len(body.messages) > _SHORT_MESSAGES or body.tools or body.ctxkit.overflow == "chain":
        return False
    texts = [one.get("content") for one in body.messages]
    return all(isinstance(text, str) for text in texts) and sum(map(len, texts)) <= _SHORT_CHARACTERS  # type: ignore[arg-type]


def _plan_request(
    service: Service,
    owner: str,
    model: Model,
    body: ChatRequest,
    sampling: Sampling,
    ignored: Sequence[str],
    dry: bool,
) -> Planned:
    made = _planned(service, owner, model, body, sampling, ignored, dry)
    if body.ctxkit.overflow == "refuse":
        refuse_if_cut(made.plan)
    if not dry:
        noted().fitted(made.report)
        service.metrics.reduced.inc(tokens_left_out(made.report))
    if body.ctxkit.overflow != "chain" or not is_cut(made.plan):
        return made
    if (body.n or 1) > 1 or body.tools or body.response_format:
        raise unsupported(
            "ctxkit.overflow", '"chain" gives one answer of text: without `n`, `tools`, `response_format`'
        )
    before = _said_before(service, owner, body)
    said, _ = unmarked([*before, *body.messages])
    return replace(made, chained=tuple(said), report={**made.report, "chained": True})


def _said_before(service: Service, owner: str, body: ChatRequest) -> list[dict[str, Any]]:
    """By the session of the request, where it has one."""
    if service.conversations is None or body.ctxkit.session is None:
        return []
    return service.conversations.history(owner, body.ctxkit.session)


def _planned(
    service: Service,
    owner: str,
    model: Model,
    body: ChatRequest,
    sampling: Sampling,
    ignored: Sequence[str],
    dry: bool,
) -> Planned:
    session = body.ctxkit.session
    if session is None:
        plan = planned(service, owner, model, body, sampling)
        return _labelled(service, body, plan, report(plan, ignored))
    turn = _turn(service, owner, session, model, body, sampling, dry)
    told = {"session": session, "reused_tokens": turn.cache.reused_tokens, "why": turn.cache.reason}
    return replace(_labelled(service, body, turn.plan, {**report(turn.plan, ignored), **told}), turn=turn)


def _labelled(service: Service, body: ChatRequest, plan: Plan, told: Mapping[str, Any]) -> Planned:
    trust = Trust(plan.label, stricter(service.options.untrusted, body.ctxkit.untrusted))
    return Planned(plan, {**told, "labels": trust.told()}, trust)


def _turn(
    service: Service, owner: str, session: str, model: Model, body: ChatRequest, sampling: Sampling, dry: bool
) -> Turn:
    """The next turn of a session: its own plan, or, where passages go in, one that is made anew."""
    if service.conversations is None:
        raise Problem(501, "this server keeps no sessions; start it with --store", code="no_sessions")
    if (body.n or 1) > 1:
        raise unsupported("n", "a session goes on with one answer: send `n` 1")
    if body.ctxkit.index and (service.index is not None or isinstance(body.ctxkit.index, str)):
        before = service.conversations.history(owner, session)
        plan = planned(service, owner, model, body, sampling, before)
        return service.conversations.anew(owner, session, len(before), body.messages, plan, model.counter)
    return service.conversations.plan(
        owner,
        session,
        body.messages,
        budget=budget_of(model, body.ctxkit, sampling.max_tokens),
        counter=model.counter,
        tools=tools_of(body),
        dry=dry,
    )


def answer_turn(
    service: Service, owner: str, made: Planned, model: Model, sampling: Sampling, n: int = 1
) -> AsyncGenerator[Item]:
    """The answers' pieces as they come. Their tokens count for the owner's limit: raises Problem 429."""
    written = n * made.plan.budget.reserve_tokens
    return service.limits.metered(owner, made.plan.prompt_tokens, written, made.answers(model, sampling, n))


async def remember_turn(service: Service, owner: str, body: ChatRequest, made: Planned, reply: Reply) -> None:
    """As `remember`, in a thread where there is something to store."""
    if made.turn is not None:
        await service.in_thread(remember, service, owner, body, made, reply)


def remember(service: Service, owner: str, body: ChatRequest, made: Planned, reply: Reply) -> None:
    """Stores the turn of a session; the answer has the label of its prompt.

    Raises SessionConflict where somebody else wrote to the session, StoreError.
    """
    if made.turn is None or service.conversations is None or body.ctxkit.session is None:
        return
    answer: dict[str, Any] = {"role": "assistant", "content": reply.text or reply.refusal or None}
    if reply.tool_calls:
        answer["tool_calls"] = [dict(call) for call in reply.tool_calls]
    elif answer["content"] is None:
        answer["content"] = ""
    service.conversations.commit(owner, body.ctxkit.session, made.turn, marked(answer, made.trust.prompt))
