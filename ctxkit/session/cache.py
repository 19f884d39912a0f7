"""CacheReport: how much of the previous prompt a prompt begins with, what broke the rest, and what that costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctxkit.context import Plan
from ctxkit.errors import PromptError
from ctxkit.protocols import TOOLS, Counter, PromptMessage, Segment


@dataclass(frozen=True, slots=True)
class CacheReport:
    """What a prompt cache can make of the latest prompt, given that it holds the one before.

    reused_tokens: with which both prompts begin, by their ids; where the counter knows no ids, by their messages.
    prefill_tokens: the rest of the prompt, which is computed. reuse: reused_tokens over the previous prompt's tokens.
    broke_at: id of the first part that is not sent as before, "tools" where the tool schemas are not, None where all
        is. The end of a prompt, which opens the answer, is no part of either.
    reason: one sentence. pays_after_turns: turns after which a compaction was worth its rewriting; None without one.
    compactions: of the session so far, this one included.
    """

    reused_tokens: int = 0
    prefill_tokens: int = 0
    reuse: float = 0.0
    broke_at: str | None = None
    reason: str = "nothing was planned yet"
    pays_after_turns: float | None = None
    compactions: int = 0

    def __str__(self) -> str:
        pays = "" if self.pays_after_turns is None else f"; pays after {self.pays_after_turns:,.1f} turns"
        return (
            f"reuses {self.reused_tokens:,} tokens ({self.reuse:.0%} of the previous prompt), computes "
            f"{self.prefill_tokens:,}: {self.reason}{pays}; {self.compactions:,} compactions so far"
        )


def reused_tokens(previous: Plan | None, plan: Plan, counter: Counter) -> int:
    """Tokens with which both prompts begin."""
    if previous is None:
        return 0
    if previous.ids is not None and plan.ids is not None:
        return _common(previous.ids, plan.ids)
    if previous.tools != plan.tools:
        return 0
    messages = plan.messages[: _common(previous.to_messages(), plan.to_messages())]
    if not messages:
        return 0
    tokens = counter.render(messages, tools=plan.tools).tokens
    return min(tokens, previous.prompt_tokens, plan.prompt_tokens)


def broke_at(previous: Plan | None, plan: Plan) -> str | None:
    """The first part of the previous prompt that is not sent as it was, `TOOLS` for the schemas, None for nothing."""
    if previous is None:
        return None
    if previous.tools != plan.tools:
        return TOOLS
    same = _common(previous.to_messages(), plan.to_messages())
    return previous.messages[same].owner if same < len(previous.messages) else None


def rewritten_by_template(previous: Plan, plan: Plan, counter: Counter) -> bool:
    """Whether less is reused than the messages alone would allow: some templates write what is old otherwise.

    A template that leaves out what a model thought in earlier turns is one. Known only where there are ids. The end of
    the previous prompt, which opens the answer, is no message: how long it is at most is measured on a probe.
    """
    if previous.ids is None or plan.ids is None:
        return False
    asked = PromptMessage("user", (Segment("a"),))
    try:
        opened, unanswered = counter.render([asked]).ids or (), counter.render([asked, asked]).ids or ()
    except PromptError:
        return False
    opening = len(opened) - _common(opened, unanswered)
    return _common(previous.ids, plan.ids) < len(previous.ids) - opening


def _common(before: Sequence[object], after: Sequence[object]) -> int:
    """Length of the common beginning. Slices compare much faster than a loop over ids does."""
    low, high = 0, min(len(before), len(after))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if before[low:middle] == after[low:middle] else (low, middle - 1)
    return low
