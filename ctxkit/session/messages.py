"""fit_messages: a conversation as OpenAI writes it and a budget in, a plan out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ctxkit.compression import standard
from ctxkit.context import Budget, Compressor, Label, Plan, Utility, fit
from ctxkit.context.chat import conversation
from ctxkit.errors import PartError
from ctxkit.protocols import ChatMessage, Counter, Tool


def fit_messages(
    messages: Iterable[ChatMessage],
    *,
    budget: Budget,
    counter: Counter,
    tools: Sequence[Tool] = (),
    compressors: Sequence[Compressor] | None = None,
    utility: Utility | None = None,
    expandable: bool = False,
    keep_last_round: bool = True,
    labels: Mapping[int, Label] | None = None,
) -> Plan:
    """Choose what of a conversation is sent, so that prompt and reserve fit the window. `plan.to_messages()` sends it.

    messages: chat messages in OpenAI's form. The system messages and the last message of the user are sent as they are;
        a tool call and its results stay together; what is sent whole is sent byte for byte as it was given. What no
        provider would take (a result without a call, a call without a result) is repaired, and `plan.repairs` says how.
    compressors: make cheaper levels of what does not fit whole; None: `ctxkit.compression.standard()`, () drops whole.
    keep_last_round: the newest tool round after the last message of the user must be in, at some level.
    labels: how far messages are trusted and who may read them, by position.

    The other arguments, and what is raised, are those of `fit`.
    """
    made = conversation(messages, keep_last_round=keep_last_round, labels=labels)
    if not made.parts:
        why = "; ".join(map(str, made.repairs)) or "the conversation is empty"
        raise PartError(f"no message is left to send: {why}")
    plan = fit(
        made.parts,
        budget=budget,
        counter=counter,
        tools=tools,
        compressors=standard() if compressors is None else compressors,
        utility=utility,
        expandable=expandable,
    )
    return replace(plan, repairs=tuple(map(str, made.repairs)))
