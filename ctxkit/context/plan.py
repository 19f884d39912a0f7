"""Plan: what goes into the prompt, what does not, why, and the exact tokens of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ctxkit.context import html, report
from ctxkit.context.budget import Budget
from ctxkit.context.level import Handle, content_digest
from ctxkit.context.part import Part
from ctxkit.errors import PartError
from ctxkit.protocols import TEMPLATE, TOOLS, PromptMessage, Tool


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one part.

    part: as it was given. level: "full", a reduced level's name, or "dropped". method: what made that level.
    tokens: exact tokens it takes in the prompt, separators and citation number included.
    full_tokens: what it was planned to cost whole.
    reason: one sentence. enters_at: for a dropped part, a `window_tokens` at which it is in (an estimate).
    number: citation number of a passage in the prompt. handle: the way to what is not in the prompt.
    """

    part: Part
    level: str
    method: str
    tokens: int
    full_tokens: int
    reason: str
    enters_at: int | None = None
    number: int | None = None
    handle: Handle | None = None

    @property
    def kept(self) -> bool:
        return self.level != "dropped"

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.part.id,
            "kind": self.part.kind,
            "title": self.part.title,
            "source": self.part.source,
            "level": self.level,
            "tokens": self.tokens,
            "full_tokens": self.full_tokens,
            "pinned": self.part.pinned,
            "priority": self.part.priority,
            "relevance": self.part.relevance,
            "number": self.number,
            "reason": self.reason,
            "enters_at": self.enters_at,
        }


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """From one plan to another, by part id: what came in, what went out, what changed its level, tokens in all."""

    entered: tuple[str, ...]
    left: tuple[str, ...]
    changed: tuple[str, ...]
    tokens: int

    def __str__(self) -> str:
        named = (("entered", self.entered), ("left", self.left), ("changed", self.changed))
        listed = [f"{name}: {', '.join(ids)}" for name, ids in named if ids] or ["same parts"]
        return f"{'; '.join(listed)} ({self.tokens:+,} tokens)"


@dataclass(frozen=True)
class Plan:
    """The result of `fit`.

    messages: the chat, each piece of text with the part it came from.
    ids: the exact ids a local model is fed, None where the counter is an estimate (`exact` is False).
    prompt_tokens: length of the prompt, chat template, tools and generation prompt included. Where `exact` is False
        an upper bound.
    decisions: one per part, in the order given. Their tokens, template_tokens and tools_tokens add up to prompt_tokens.
    value, bound: what the kept parts are worth, and what no choice can exceed (pinned parts count in neither).
    shadow_price: value that one more token would buy.
    """

    messages: tuple[PromptMessage, ...]
    ids: tuple[int, ...] | None = field(repr=False)
    prompt_tokens: int
    budget: Budget
    decisions: tuple[Decision, ...]
    template_tokens: int
    tools_tokens: int
    value: float
    bound: float
    shadow_price: float
    minimum: int
    counter_name: str
    exact: bool
    tools: tuple[Tool, ...] = ()

    @property
    def free_tokens(self) -> int:
        """What the budget allows beyond this prompt, the reserve not counted."""
        return self.budget.prompt_tokens - self.prompt_tokens

    @property
    def gap(self) -> float:
        """(bound - value) / bound: at most this share of the reachable value was missed. 0.0 where all is in."""
        return (self.bound - self.value) / self.bound if self.bound > 0 else 0.0

    @property
    def kept(self) -> tuple[Decision, ...]:
        return tuple(decision for decision in self.decisions if decision.kept)

    @property
    def dropped(self) -> tuple[Decision, ...]:
        return tuple(decision for decision in self.decisions if not decision.kept)

    @property
    def passages(self) -> Mapping[int, Part]:
        """Citation number -> passage, as numbered in the prompt."""
        return {decision.number: decision.part for decision in self.decisions if decision.number is not None}

    @property
    def text(self) -> str:
        """The contents of all messages, for a prompt that is not sent as a chat."""
        return "\n\n".join(message.content for message in self.messages)

    def to_messages(self) -> list[dict[str, Any]]:
        """The chat in OpenAI's format."""
        return [message.to_dict() for message in self.messages]

    def decision(self, part_id: str) -> Decision:
        """What became of the part. Raises PartError for an id that is not in the plan."""
        for decision in self.decisions:
            if decision.part.id == part_id:
                return decision
        known = ", ".join(repr(decision.part.id) for decision in self.decisions[:8])
        raise PartError(
            f"no part {part_id!r} in this plan; its parts are {known}{', ...' if len(self.decisions) > 8 else ''}"
        )

    def why(self, part_id: str) -> str:
        """Why the part is in the prompt, or is not, in one line."""
        return report.why(self.decision(part_id))

    def why_not(self, part_id: str) -> str:
        """What keeps the part out, and the window at which it comes in; says so if it is in."""
        return report.why_not(self.decision(part_id), self)

    def diff(self, previous: Plan) -> PlanDiff:
        """What changed since `previous`."""
        before = {decision.part.id: decision.level for decision in previous.kept}
        after = {decision.part.id: decision.level for decision in self.kept}
        return PlanDiff(
            entered=tuple(name for name in after if name not in before),
            left=tuple(name for name in before if name not in after),
            changed=tuple(name for name in after if before.get(name, after[name]) != after[name]),
            tokens=self.prompt_tokens - previous.prompt_tokens,
        )

    def expand(self, handle: Handle) -> str:
        """The original text behind a handle of this plan, byte for byte. Raises PartError for another plan's handle."""
        content = self.decision(handle.part_id).part.content
        if content_digest(content) != handle.digest:
            raise PartError(f"handle {handle} was made for another content of part {handle.part_id!r}")
        lines = content.splitlines(keepends=True)
        whole = handle.start_line == 1 and handle.end_line >= handle.total_lines
        return content if whole else "".join(lines[handle.start_line - 1 : handle.end_line])

    def to_dict(self) -> dict[str, Any]:
        """Everything but the ids, ready for JSON."""
        return {
            "messages": self.to_messages(),
            "prompt_tokens": self.prompt_tokens,
            "exact": self.exact,
            "counter": self.counter_name,
            "window_tokens": self.budget.window_tokens,
            "reserve_tokens": self.budget.reserve_tokens,
            "free_tokens": self.free_tokens,
            "template_tokens": self.template_tokens,
            "tools_tokens": self.tools_tokens,
            "minimum": self.minimum,
            "gap": self.gap,
            "shadow_price": self.shadow_price,
            "decisions": [decision.to_dict() for decision in self.decisions],
        }

    def charges(self) -> list[tuple[str, int]]:
        """(owner, tokens) of everything in the prompt; adds up to prompt_tokens."""
        overhead: Sequence[tuple[str, int]] = ((TEMPLATE, self.template_tokens), (TOOLS, self.tools_tokens))
        parts = [(decision.part.id, decision.tokens) for decision in self.kept]
        return parts + [(name, tokens) for name, tokens in overhead if tokens]

    def __repr__(self) -> str:
        return report.one_line(self)

    def __str__(self) -> str:
        return report.as_text(self)

    def __rich__(self) -> Any:
        return report.as_table(self)

    def _repr_html_(self) -> str:
        return html.as_html(self)
