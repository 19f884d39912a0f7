"""OpenAI's chat messages: `trim_messages`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ctxkit.context import Budget, Compressor
from ctxkit.protocols import ChatMessage, Counter, Tool
from ctxkit.session import fit_messages
from ctxkit_connectors.shared import budget_of


def trim_messages(
    messages: Iterable[ChatMessage],
    *,
    max_tokens: int | None = None,
    budget: Budget | None = None,
    counter: Counter,
    tools: Sequence[Tool] = (),
    compressors: Sequence[Compressor] | None = None,
    keep_last_round: bool = True,
) -> list[dict[str, Any]]:
    """The messages to send, so that the prompt fits: `ctxkit.fit_messages` for callers who want no plan.

    max_tokens: of the whole prompt, tools included; or pass a `budget` with window and reserve.
    tools: the schemas sent along; they are counted.

    The other arguments, and what is raised, are those of `ctxkit.fit_messages`. No messages in, none out.
    """
    budget, given = budget_of(max_tokens, budget), list(messages)
    if not given:
        return []
    plan = fit_messages(
        given, budget=budget, counter=counter, tools=tools, compressors=compressors, keep_last_round=keep_last_round
    )
    return plan.to_messages()
