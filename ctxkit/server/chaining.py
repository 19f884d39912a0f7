"""Chaining: a conversation longer than the window answered from all of it, by Chain-of-Agents (arXiv 2406.02818)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from ctxkit.protocols import ChatMessage, Model, Reply, Sampling
from ctxkit.server.answering import Item, Piece
from ctxkit.tokens.messages import text_of

_UNIT_SHARE = 8  # of the window, for the notes that one worker hands to the next
_MOST_UNIT = 1024


async def chained(
    model: Model, messages: Sequence[ChatMessage], sampling: Sampling, window_tokens: int
) -> AsyncGenerator[Item]:
    """The answer in one piece, and its reply: its prompt tokens are those of all workers and of the manager.

    The last message of the user is the question, what stands before it is read. Raises BudgetInfeasible where the
    window is too small for any of it, and what the model raises.
    """
    from ctxkit_agents.chain_of_agents import ChainOfAgents

    asked = max((at for at, one in enumerate(messages) if one.get("role") == "user"), default=len(messages) - 1)
    unit = max(min(window_tokens // _UNIT_SHARE, _MOST_UNIT), 16)
    chain = ChainOfAgents(
        model,
        worker_window_tokens=window_tokens,
        unit_tokens=unit,
        quote_tokens=unit // 4,
        evidence_tokens=max(window_tokens // 4, 1),
        answer_tokens=sampling.max_tokens,
        retries=1,
    )
    task = chain.task(list(messages[:asked]), question=text_of(messages[asked].get("content")))
    outcome = await task.arun()
    spent = outcome.spent
    yield 0, Piece(outcome.text)
    yield 0, Reply(outcome.text, "stop", spent.tokens_in, spent.tokens_out, model.name)
