"""Planning: what of a conversation, and of an index, goes into the prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from ctxkit.compression import standard
from ctxkit.context import Budget, Decision, Part, Plan, fit
from ctxkit.context.chat import conversation
from ctxkit.context.labels import Label
from ctxkit.errors import BudgetInfeasible, PartError
from ctxkit.protocols import ChatMessage, Model, Sampling, Tool
from ctxkit.server.chat_request import ChatRequest, ContextOptions
from ctxkit.server.labels import UNTRUSTED, as_passage, unmarked
from ctxkit.server.problems import Problem
from ctxkit.server.service import Service
from ctxkit.server.telemetry import RETRIEVAL, TOP_K, span
from ctxkit.tokens.messages import text_of

if TYPE_CHECKING:
    from ctxkit.retrieval import Searchable

_DROPPED_NAMED = 50  # in a report


def plan_chat(
    model: Model,
    messages: Sequence[ChatMessage],
    *,
    tools: Sequence[Tool] = (),
    answer_tokens: int,
    options: ContextOptions,
    index: Searchable | None = None,
    passages: int = 40,
    label: Label = UNTRUSTED,
) -> Plan:
    """The prompt for a conversation, with passages before the last message of the user where there is an index.

    label: of the passages whose document does not say whether it is trusted.

    Raises BudgetInfeasible where what must be in does not fit, PartError for what is no conversation.
    """
    budget = budget_of(model, options, answer_tokens)
    messages, labels = unmarked(messages)
    made = conversation(messages, labels=labels)
    if not made.parts:
        raise PartError("no message is left to send: " + ("; ".join(map(str, made.repairs)) or "there is none"))
    found = _passages(index, messages, passages, label) if index is not None else []
    parts = _with_passages(made.parts, found)
    plan = fit(parts, budget=budget, counter=model.counter, tools=tools, compressors=standard())
    return replace(plan, repairs=tuple(map(str, made.repairs)))


def budget_of(model: Model, options: ContextOptions, answer_tokens: int) -> Budget:
    window = min(model.window_tokens, options.window_tokens or model.window_tokens)
    return Budget(window, min(answer_tokens, max(window - 1, 0)))


def planned(
    service: Service,
    owner: str,
    model: Model,
    body: ChatRequest,
    sampling: Sampling,
    before: Sequence[ChatMessage] = (),
) -> Plan:
    """The prompt of a chat request. before: what was said before its messages.

    Raises BudgetInfeasible, PartError, StoreError, NoSuchIndex.
    """
    shared = isinstance(body.ctxkit.index, bool)
    with index_of(service, owner, body) as index:
        return plan_chat(
            model,
            [*before, *body.messages],
            tools=tools_of(body),
            answer_tokens=sampling.max_tokens,
            options=body.ctxkit,
            index=index,
            passages=service.options.passages,
            label=Label.parse(service.options.index_label) if shared else UNTRUSTED,
        )


def tools_of(body: ChatRequest) -> Sequence[Tool]:
    return body.tools or () if body.tool_choice != "none" else ()


@contextmanager
def index_of(service: Service, owner: str, body: ChatRequest) -> Iterator[Searchable | None]:
    """Where the passages of a request come from; None where it wants none or there is none. Raises Problem."""
    wanted = body.ctxkit.index
    if isinstance(wanted, bool):
        yield service.index if wanted else None
    elif service.indexes is None:
        raise Problem(501, "this server takes no documents; start it with --indexes FOLDER", code="no_indexes")
    else:
        with service.indexes.opened(owner, wanted) as index:
            yield index


def _passages(index: Searchable, messages: Sequence[ChatMessage], most: int, label: Label) -> list[Part]:
    asked = next((text_of(one.get("content")) for one in reversed(messages) if one.get("role") == "user"), "")
    if not asked.strip():
        return []
    with span(RETRIEVAL, PurePath(index.path).name, {TOP_K: most}):
        return [as_passage(hit, label) for hit in index.search(asked, k=most)]


def _with_passages(parts: Sequence[Part], passages: Sequence[Part]) -> list[Part]:
    """The passages stand before the last message of the user: they are what it is to be answered from."""
    users = [at for at, part in enumerate(parts) if part.role == "user"]
    at = users[-1] if users else len(parts)
    return [*parts[:at], *reversed(passages), *parts[at:]]


def is_cut(plan: Plan) -> bool:
    """Whether something of the conversation is not in the prompt as it was said."""
    return any(one.level != "full" and one.part.kind != "passage" for one in plan.decisions)


def refuse_if_cut(plan: Plan) -> None:
    """Raises BudgetInfeasible, with what the whole conversation needs, where something of it is left out."""
    if not is_cut(plan):
        return
    whole = plan.replan(window_tokens=1 << 40)
    needed = whole.prompt_tokens + plan.budget.reserve_tokens
    raise BudgetInfeasible(
        f"the conversation needs {needed:,} tokens, answer included, and the window is {plan.budget.window_tokens:,}; "
        'shorten it, or send `"ctxkit": {"overflow": "fit"}` to have the best of it answered',
        minimum=needed,
        window_tokens=plan.budget.window_tokens,
        reserve_tokens=plan.budget.reserve_tokens,
        by_part=whole.by_owner,
    )


def report(plan: Plan, ignored: Sequence[str] = ()) -> dict[str, Any]:
    """`x_ctxkit` of an answer: what the prompt was made of. Its tokens are those that the model was fed."""
    said = [one for one in plan.decisions if one.part.kind != "passage"]
    offered = [one for one in plan.decisions if one.part.kind == "passage"]
    reduced = [one for one in said if one.level not in ("full", "dropped")]
    dropped = [one for one in said if one.level == "dropped"]
    return {
        "window_tokens": plan.budget.window_tokens,
        "prompt_tokens": plan.prompt_tokens,
        "reserve_tokens": plan.budget.reserve_tokens,
        "by_kind": _by_kind(plan),
        "original_tokens": _original_tokens(plan),
        "exact": plan.exact,
        "kept": sum(one.level == "full" for one in said),
        "reduced": [{"id": one.part.id, "level": one.level, "tokens": one.tokens} for one in reduced],
        "dropped": [{"id": one.part.id, "tokens": one.full_tokens} for one in dropped[:_DROPPED_NAMED]],
        "dropped_more": max(len(dropped) - _DROPPED_NAMED, 0),
        "passages_offered": len(offered),
        "sources": [_source(one) for one in offered if one.kept],
        "repairs": list(plan.repairs),
        "ignored_fields": list(ignored),
    }


def _source(one: Decision) -> dict[str, Any]:
    """A passage in the prompt; `number` is its citation number there."""
    named = {"number": one.number, "id": one.part.id, "source": one.part.source, "title": one.part.title}
    return {**named, "level": one.level, "tokens": one.tokens, "label": str(one.label)}


def _original_tokens(plan: Plan) -> int:
    """Of the whole conversation: what is sent of it, and what is saved on that which is not sent as it was said."""
    passages = sum(one.tokens for one in plan.decisions if one.part.kind == "passage")
    cut = [one for one in plan.decisions if one.part.kind != "passage" and one.level != "full"]
    return plan.prompt_tokens - passages + sum(max(one.full_tokens - one.tokens, 0) for one in cut)


def tokens_left_out(told: Mapping[str, Any]) -> int:
    """Of the conversation of a report: tokens that did not go to the model."""
    sent = sum(tokens for kind, tokens in told["by_kind"].items() if kind != "passage")
    return max(int(told["original_tokens"]) - sent, 0)


def _by_kind(plan: Plan) -> dict[str, int]:
    """Tokens of the prompt by the kind of part; they add up to prompt_tokens."""
    found: dict[str, int] = {}
    for one in plan.decisions:
        if one.tokens:
            found[one.part.kind] = found.get(one.part.kind, 0) + one.tokens
    return {**found, "template": plan.template_tokens, "tools": plan.tools_tokens}
