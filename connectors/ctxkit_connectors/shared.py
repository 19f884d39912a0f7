"""What the connectors share: how a budget is said, and a counter for messages that change on their way out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ctxkit.context import Budget
from ctxkit.errors import BudgetError
from ctxkit.protocols import Counter, PromptMessage, Rendering, Tool


def budget_of(max_tokens: int | None, budget: Budget | None) -> Budget:
    """`budget`, or one whose prompt may have `max_tokens`. Raises BudgetError unless exactly one is given."""
    if budget is not None and max_tokens is None:
        return budget
    if max_tokens is not None and budget is None:
        return Budget(window_tokens=max_tokens)
    raise BudgetError(f"pass either `max_tokens` or `budget`, got {max_tokens!r} and {budget!r}")


class CountedAsSent:
    """A Counter that is asked about messages as they are sent in the end.

    as_sent: a message of a plan as it looks in the other form. Arguments of calls are objects there, spelled anew.
    """

    def __init__(self, counter: Counter, as_sent: Callable[[PromptMessage], PromptMessage]) -> None:
        self._counter, self._as_sent = counter, as_sent
        self.name, self.exact = counter.name, counter.exact

    def count(self, text: str) -> int:
        return self._counter.count(text)

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        return self._counter.count_batch(texts)

    def render(self, messages: Sequence[PromptMessage], *, tools: Sequence[Tool] = ()) -> Rendering:
        return self._counter.render([self._as_sent(message) for message in messages], tools=tools)
