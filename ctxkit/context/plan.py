"""Plan: what goes into the prompt, what does not, why, and the exact tokens of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from ctxkit.context import counterfactual, html, report
from ctxkit.context.budget import Budget
from ctxkit.context.decision import Decision
from ctxkit.context.expand import lines_of, parse_ref
from ctxkit.context.labels import Label, joined
from ctxkit.context.level import Handle, Level, content_digest, source_text
from ctxkit.context.part import Part
from ctxkit.errors import PartError
from ctxkit.protocols import TEMPLATE, TOOLS, PromptMessage, Tool

if TYPE_CHECKING:
    from ctxkit.context.fit import Fitting


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """From one plan to another, by part id: what came in, what went out, what is sent otherwise, tokens in all."""

    entered: tuple[str, ...]
    left: tuple[str, ...]
    changed: tuple[str, ...]
    tokens: int

    def __str__(self) -> str:
        named = (("entered", self.entered), ("left", self.left), ("changed", self.changed))
        listed = [f"{name}: {', '.join(ids)}" for name, ids in named if ids] or ["same parts"]
        return f"{'; '.join(listed)} ({self.tokens:+,} tokens)"


_ROUNDING = 1e-12  # sums of equal values in another order differ by less


class Work(Protocol):
    """What a plan needs to explain itself."""

    @property
    def fitting(self) -> Fitting: ...

    @property
    def decisions(self) -> tuple[Decision, ...]: ...

    @property
    def minimum(self) -> int: ...

    @property
    def levels(self) -> Mapping[int, Level]: ...

    def again(self, budget: Budget | None, require: Iterable[str]) -> Plan: ...


@dataclass(frozen=True)
class Plan:
    """The result of `fit`.

    messages: the chat, each piece of text with the part it came from.
    ids: the exact ids a local model is fed, None where the counter is an estimate (`exact` is False).
    prompt_tokens: length of the prompt, chat template, tools and generation prompt included. Where `exact` is False
        an upper bound.
    by_owner: tokens of each part, of the template and of the tools; they add up to prompt_tokens.
    repairs: what was wrong with the conversation that was given, and what was done about it, one line each.
    tools: the schemas sent along, `expand` among them where the prompt shows a handle.
    value, bound: what the kept parts are worth, and what no choice can exceed (pinned parts count in neither).
    shadow_price: value that one more token would buy.
    """

    messages: tuple[PromptMessage, ...]
    ids: tuple[int, ...] | None = field(repr=False)
    prompt_tokens: int
    budget: Budget
    by_owner: Mapping[str, int] = field(repr=False)
    template_tokens: int
    tools_tokens: int
    value: float
    bound: float
    shadow_price: float
    counter_name: str
    exact: bool
    tools: tuple[Tool, ...] = ()
    repairs: tuple[str, ...] = ()
    _work: Work | None = field(default=None, repr=False, compare=False)

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """One per part, in the order given. Their tokens, template_tokens and tools_tokens add up to prompt_tokens."""
        return self._work.decisions if self._work else ()

    @cached_property
    def minimum(self) -> int:
        """The smallest `window_tokens` for which `fit` succeeds with these parts and this reserve."""
        return self._work.minimum if self._work else self.prompt_tokens + self.budget.reserve_tokens

    @property
    def levels(self) -> Mapping[int, Level]:
        """Group index -> the level that was chosen for it. Pinned and dropped groups are not there."""
        return self._work.levels if self._work else {}

    def replan(self, *, window_tokens: int | None = None, require: Iterable[str] = ()) -> Plan:
        """The plan for another window, or with the parts named in `require` in whole. Nothing is counted twice.

        Raises BudgetInfeasible where that does not fit, PartError for an id that is not in the plan.
        """
        required = tuple(require)
        for part_id in required:
            self.decision(part_id)
        if self._work is None:
            raise PartError("this plan was not made by `fit`: it cannot be planned again")
        budget = self.budget if window_tokens is None else replace(self.budget, window_tokens=window_tokens)
        return replace(self._work.again(budget, required), repairs=self.repairs)

    def with_more(self, tokens: int) -> PlanDiff:
        """What so many more tokens would change: the shadow price, in parts."""
        return self.replan(window_tokens=self.budget.window_tokens + tokens).diff(self)

    @cached_property
    def worth(self) -> Mapping[str, float]:
        """Part id -> what its group is worth whole. Empty for a plan that was not made by `fit`."""
        if self._work is None:
            return {}
        problem = self._work.fitting.problem
        return {part.id: problem.values[group.index] for group in problem.groups for part in group.parts}

    @property
    def free_tokens(self) -> int:
        """What the budget allows beyond this prompt, the reserve not counted."""
        return self.budget.prompt_tokens - self.prompt_tokens

    @property
    def gap(self) -> float:
        """(bound - value) / bound: at most this share of the reachable value was missed. 0.0 where all is in."""
        gap = (self.bound - self.value) / self.bound if self.bound > 0 else 0.0
        return gap if gap > _ROUNDING else 0.0

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

    @cached_property
    def label(self) -> Label:
        """Of everything in the prompt together: what an answer to it has, unless more is known."""
        return joined(decision.sent.label for decision in self.decisions if decision.sent is not None)

    @property
    def text(self) -> str:
        """The contents of all messages, for a prompt that is not sent as a chat."""
        return "\n\n".join(message.content for message in self.messages)

    def to_messages(self) -> list[dict[str, Any]]:
        """The chat in OpenAI's format."""
        return [message.to_dict() for message in self.messages]

    def decision(self, part_id: str) -> Decision:
        """What became of the part. Raises PartError for an id that is not in the plan."""
        found = self._by_id.get(part_id)
        if found is None:
            known = ", ".join(repr(decision.part.id) for decision in self.decisions[:8])
            more = ", ..." if len(self.decisions) > 8 else ""
            raise PartError(f"no part {part_id!r} in this plan; its parts are {known}{more}")
        return found

    @cached_property
    def _by_id(self) -> dict[str, Decision]:
        return {decision.part.id: decision for decision in self.decisions}

    def why(self, part_id: str) -> str:
        """Why the part is in the prompt, or is not, in one line."""
        return report.why(self.decision(part_id))

    def why_not(self, part_id: str) -> str:
        """What keeps the part out or reduced, what would have to go for it, and the window at which it comes in."""
        return counterfactual.why_not(self, self.decision(part_id))

    def diff(self, previous: Plan) -> PlanDiff:
        """What changed since `previous`."""
        before = {decision.part.id: decision.sent for decision in previous.kept}
        after = {decision.part.id: decision.sent for decision in self.kept}
        return PlanDiff(
            entered=tuple(name for name in after if name not in before),
            left=tuple(name for name in before if name not in after),
            changed=tuple(name for name in after if before.get(name, after[name]) != after[name]),
            tokens=self.prompt_tokens - previous.prompt_tokens,
        )

    def expand(self, handle: Handle | str) -> str:
        """The original text behind a handle of this plan, or behind the `ref` that the prompt shows, byte for byte.

        Raises PartError for another plan's handle and for an unknown ref.
        """
        if isinstance(handle, str):
            part_id, span = parse_ref(handle)
        else:
            part_id, span = handle.part_id, (handle.start_line, handle.end_line)
        source = source_text(self.decision(part_id).part)
        if isinstance(handle, Handle) and content_digest(source) != handle.digest:
            raise PartError(f"handle {handle} was made for another content of part {part_id!r}")
        return lines_of(source, span)

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
            "repairs": list(self.repairs),
            "decisions": [decision.to_dict() for decision in self.decisions],
            **({} if self.label.is_default else {"label": str(self.label)}),
        }

    def charges(self) -> list[tuple[str, int]]:
        """(owner, tokens) of everything in the prompt; adds up to prompt_tokens."""
        overhead: Sequence[tuple[str, int]] = ((TEMPLATE, self.template_tokens), (TOOLS, self.tools_tokens))
        parts = [(owner, tokens) for owner, tokens in self.by_owner.items() if owner not in (TEMPLATE, TOOLS)]
        return parts + [(name, tokens) for name, tokens in overhead if tokens]

    def __repr__(self) -> str:
        return report.one_line(self)

    def __str__(self) -> str:
        return report.as_text(self)

    def __rich__(self) -> Any:
        return report.as_table(self)

    def _repr_html_(self) -> str:
        return html.as_html(self)
