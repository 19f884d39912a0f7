"""What the connectors share: how a budget is said, a counter for messages that change on their way, a hit's data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctxkit.context import Budget
from ctxkit.errors import BudgetError
from ctxkit.protocols import PromptMessage, Rendering, Tool
from ctxkit.tokens.wrapped import WrappedCounter

if TYPE_CHECKING:
    from ctxkit.retrieval import Hit


def budget_of(max_tokens: int | None, budget: Budget | None) -> Budget:
    """`budget`, or one whose prompt may have `max_tokens`. Raises BudgetError unless exactly one is given."""
    if budget is not None and max_tokens is None:
        return budget
    if max_tokens is not None and budget is None:
        return Budget(window_tokens=max_tokens)
    raise BudgetError(f"pass either `max_tokens` or `budget`, got {max_tokens!r} and {budget!r}")


def window_of(budget: Budget | None, window_tokens: int | None, reserve_tokens: int) -> Budget:
    """`budget`, or one of this window and reserve. Raises BudgetError unless exactly one is given."""
    if budget is None and window_tokens is not None:
        return Budget(window_tokens, reserve_tokens)
    if budget is not None and window_tokens is None and not reserve_tokens:
        return budget
    raise BudgetError(
        "pass either `budget` or `window_tokens` (and `reserve_tokens`), "
        f"got budget={budget!r}, window_tokens={window_tokens!r}, reserve_tokens={reserve_tokens!r}"
    )


@dataclass(frozen=True)
class CountedAsSent(WrappedCounter):
    """A Counter that is asked about messages as they are sent in the end.

    as_sent: a message of a plan as it looks in the other form. Arguments of calls are objects there, spelled anew.
    """

    as_sent: Callable[[PromptMessage], PromptMessage]

    def render(self, messages: Sequence[PromptMessage], *, tools: Sequence[Tool] = ()) -> Rendering:
        return self.inner.render([self.as_sent(message) for message in messages], tools=tools)


def tool_schema(name: str, description: str | None, parameters: Mapping[str, Any]) -> Tool:
    """A tool as OpenAI's chat form has it, for counting. parameters: its JSON schema."""
    function = {"name": name, "description": description or "", "parameters": parameters}
    return {"type": "function", "function": function}


def hit_metadata(hit: Hit) -> dict[str, Any]:
    """What a framework's document says of a hit besides its text: the chunk's own metadata, its place and its scores.

    Keys of ours (`source`, `title`, `location`, `rank`, `relevance`, `score`) stand before equal ones of the document.
    """
    chunk = hit.chunk
    found = {"rank": hit.rank, "relevance": hit.relevance, "score": hit.score}
    return {**chunk.metadata, "source": chunk.source, "title": chunk.title, "location": chunk.location, **found}
