"""fit: parts and a budget in, a plan out.

Planning adds up cached token counts; that is only an estimate, since a tokenizer may join or split at the seams. So
every candidate is rendered and counted exactly, and the capacity of the next choice is corrected by what was off. What
is returned was counted as it will be sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ctxkit.context.budget import Budget
from ctxkit.context.choose import Choice, Option, choose
from ctxkit.context.compose import compose, opens_message, planning_texts
from ctxkit.context.explain import decide
from ctxkit.context.group import Group, grouped, identified
from ctxkit.context.level import Compressor, Level, dropped, full
from ctxkit.context.part import KINDS, Kind, Part, SupportsPart
from ctxkit.context.plan import Plan
from ctxkit.errors import BudgetInfeasible, PartError, PromptError
from ctxkit.protocols import TEMPLATE, TOOLS, Counter, PromptMessage, Rendering, Segment, Tool

_ROUNDS = 12  # corrections of the capacity; two are usual
_MESSAGE_TOKENS = 8  # per message, where the template refuses to render the probe


def fit(
    parts: Iterable[Part | SupportsPart],
    *,
    budget: Budget,
    counter: Counter,
    tools: Sequence[Tool] = (),
    compressors: Sequence[Compressor] = (),
) -> Plan:
    """Choose what goes into the prompt, so that prompt and reserve fit the window.

    parts: Parts or search hits, in the order in which they should stand in the prompt.
    budget: window, reserve, floors and caps, in tokens of `counter`.
    counter: the target model, or a counter of its tokenizer and chat template.
    tools: tool schemas sent along; they are counted.
    compressors: make cheaper levels of the groups that do not fit whole.

    Raises PartError for malformed parts, BudgetInfeasible where the pinned parts alone do not fit (it carries the
    smallest window that does), PromptError where the chat template refuses the messages.
    """
    given = identified(list(parts))
    if not given:
        raise PartError("`fit` needs at least one part")
    problem = _Problem(given, grouped(given), budget, counter, tuple(tools))
    base = problem.render({})
    _refuse_infeasible(problem, base)
    costs = problem.costs()
    ladders = {group.index: [dropped(group), full(group)] for group in problem.optional}
    found = _search(problem, base, ladders, costs)
    if compressors and any(found.picks[index] == 0 for index in ladders):
        ladders = {group.index: _ladder(group, compressors, problem.question) for group in problem.optional}
        costs.add(level for ladder in ladders.values() for level in ladder)
        found = _search(problem, base, ladders, costs)
    _refuse_empty(problem, found, costs)
    return _plan(problem, base, ladders, costs, found)


@dataclass(frozen=True)
class _Problem:
    """The question that `fit` was asked, prepared once."""

    parts: tuple[Part, ...]
    groups: tuple[Group, ...]
    budget: Budget
    counter: Counter
    tools: tuple[Tool, ...]

    @property
    def optional(self) -> list[Group]:
        return [group for group in self.groups if not group.pinned]

    @property
    def limit(self) -> int:
        return self.budget.prompt_tokens

    @property
    def question(self) -> str:
        asked = [part.content for part in self.parts if part.kind == "question" or part.role == "user" and part.pinned]
        return asked[-1] if asked else ""

    def selection(self, levels: Mapping[int, Level]) -> list[Part]:
        """The parts that are sent: pinned groups as they are, others at the level given (absent: dropped)."""
        sent: dict[str, Part] = {}
        for group in self.groups:
            chosen = group.parts if group.pinned else levels[group.index].parts if group.index in levels else ()
            sent.update((part.id, part) for part in chosen)
        return [sent[part.id] for part in self.parts if part.id in sent]

    def messages(self, levels: Mapping[int, Level]) -> tuple[PromptMessage, ...]:
        return compose(self.selection(levels))

    def render(self, levels: Mapping[int, Level]) -> Rendering:
        messages = self.messages(levels)
        if not messages and not self.tools:
            return Rendering(0, (), {})
        return self.counter.render(messages, tools=self.tools)

    def costs(self) -> _Costs:
        costs = _Costs(self.counter)
        costs.add([full(group) for group in self.optional])
        return costs


class _Costs:
    """Planning costs: what a part adds to a prompt, about. Each text is counted once."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._message_tokens = _message_tokens(counter)
        self._tokens: dict[str, int] = {}

    def add(self, levels: Iterable[Level]) -> None:
        texts = [text for level in levels for part in level.parts for text in planning_texts(part)]
        self._tokens.update(zip(texts, self._counter.count_batch(texts), strict=True))

    def part(self, part: Part) -> int:
        overhead = self._message_tokens if opens_message(part) else 0
        return overhead + sum(self._tokens[text] for text in planning_texts(part))

    def option(self, group: Group, level: Level) -> Option:
        by_kind: dict[Kind, int] = {}
        for part in level.parts:
            by_kind[part.kind] = by_kind.get(part.kind, 0) + self.part(part)
        return Option(sum(by_kind.values()), by_kind, group.value * level.utility)


def _message_tokens(counter: Counter) -> int:
    """What the template adds per message, measured on a probe."""
    user = PromptMessage("user", (Segment("a"),))
    answer = PromptMessage("assistant", (Segment("a"),))
    try:
        two, four = counter.render([user, answer]), counter.render([user, answer, user, answer])
    except PromptError:
        return _MESSAGE_TOKENS
    return max((four.tokens - two.tokens - 2 * counter.count("a") + 1) // 2, 0)


def _ladder(group: Group, compressors: Sequence[Compressor], question: str) -> list[Level]:
    """Every level of a group, dropped first. A compressor is asked for its levels only here."""
    made = [level for compressor in compressors for level in compressor.levels(group, question)]
    return [dropped(group), *made, full(group)]


@dataclass(frozen=True)
class _Found:
    """A choice that was rendered and fits. `value`, `bound` and `shadow_price` as the chooser states them."""

    picks: Mapping[int, int]
    rendering: Rendering
    choice: Choice | None


def _search(problem: _Problem, base: Rendering, ladders: Mapping[int, Sequence[Level]], costs: _Costs) -> _Found:
    """Choose, render, correct the capacity by what the estimate was off, until nothing better fits."""
    options = {g.index: [costs.option(g, level) for level in ladders[g.index]] for g in problem.optional}
    pinned = _tokens_by_kind(problem.parts, base)
    best = _Found(dict.fromkeys(options, 0), base, None)
    capacity, budget = problem.limit - base.tokens, problem.budget
    seen: set[tuple[int, ...]] = set()
    for attempt in range(_ROUNDS):
        choice = choose(options, capacity, budget, pinned)
        key = tuple(choice.picks[index] for index in options)
        if key in seen:
            break
        seen.add(key)
        levels = _levels(ladders, choice.picks)
        rendering = problem.render(levels)
        over = rendering.tokens - problem.limit
        excess = _over_caps(problem, rendering, levels)
        if over <= 0 and not excess:
            best = _better(best, _Found(choice.picks, rendering, choice))
            capacity -= over
        else:
            # Doubling ends the search early where each correction uncovers another: nothing picked always fits.
            capacity -= max(over, 0) * 2 ** min(attempt, 8)
            budget = replace(budget, floors={}, caps={k: max(c - excess.get(k, 0), 0) for k, c in budget.caps.items()})
    return best


def _better(best: _Found, found: _Found) -> _Found:
    value = found.choice.value if found.choice else 0.0
    return found if best.choice is None or value > best.choice.value else best


def _levels(ladders: Mapping[int, Sequence[Level]], picks: Mapping[int, int]) -> dict[int, Level]:
    return {index: ladders[index][pick] for index, pick in picks.items() if pick > 0}


def _tokens_by_kind(parts: Iterable[Part], rendering: Rendering) -> dict[Kind, int]:
    tokens = dict.fromkeys(KINDS, 0)
    for part in parts:
        tokens[part.kind] += rendering.by_owner.get(part.id, 0)
    return tokens


def _over_caps(problem: _Problem, rendering: Rendering, levels: Mapping[int, Level]) -> dict[Kind, int]:
    """By how much each kind exceeds its cap, counted exactly; kinds with only pinned parts in are exempt."""
    used = _tokens_by_kind(problem.parts, rendering)
    unpinned = {part.kind for level in levels.values() for part in level.parts}
    return {
        kind: used[kind] - cap for kind, cap in problem.budget.caps.items() if kind in unpinned and used[kind] > cap
    }


def _refuse_infeasible(problem: _Problem, base: Rendering) -> None:
    if base.tokens <= problem.limit:
        return
    budget = problem.budget
    minimum = base.tokens + budget.reserve_tokens
    named = ", ".join(f"`{owner}` {tokens:,}" for owner, tokens in base.by_owner.items() if tokens)
    raise BudgetInfeasible(
        f"what must be in needs {base.tokens:,} tokens of {problem.limit:,} ({budget.window_tokens:,} less a reserve "
        f"of {budget.reserve_tokens:,}): {named}. Raise `window_tokens` to {minimum:,}, lower `reserve_tokens`, "
        "or pass a part with `pinned=False`.",
        minimum=minimum,
        window_tokens=budget.window_tokens,
        reserve_tokens=budget.reserve_tokens,
        by_part=base.by_owner,
    )


def _smallest(problem: _Problem, costs: _Costs) -> tuple[Group, Rendering] | None:
    """The optional group that takes the fewest tokens on its own, counted exactly."""
    wanted = [group for group in problem.optional if group.value > 0]
    if not wanted:
        return None
    planned = {group.index: costs.option(group, full(group)).tokens for group in wanted}
    # Estimates are off by a few tokens at the seams: only groups within that of the cheapest can be the smallest.
    near = [group for group in wanted if planned[group.index] <= min(planned.values()) + 2 * _MESSAGE_TOKENS]
    alone = [(group, problem.render({group.index: full(group)})) for group in near]
    return min(alone, key=lambda pair: (pair[1].tokens, pair[0].index))


def _minimum(problem: _Problem, base: Rendering, costs: _Costs) -> int:
    """The smallest window for which the call succeeds: the pinned parts, or the smallest part where none is pinned."""
    smallest = None if base.tokens else _smallest(problem, costs)
    return problem.budget.reserve_tokens + (smallest[1].tokens if smallest else base.tokens)


def _refuse_empty(problem: _Problem, found: _Found, costs: _Costs) -> None:
    """Nothing is pinned and nothing fits: an empty prompt is no prompt."""
    if any(group.pinned for group in problem.groups) or any(found.picks.values()):
        return
    smallest = _smallest(problem, costs)
    if smallest is None:
        raise PartError("no part is pinned and every part has relevance 0: there is nothing to send")
    group, alone = smallest
    budget = problem.budget
    raise BudgetInfeasible(
        f"no part fits into {problem.limit:,} tokens ({budget.window_tokens:,} less a reserve of "
        f"{budget.reserve_tokens:,}); the smallest, `{group.parts[0].id}`, needs {alone.tokens:,}",
        minimum=alone.tokens + budget.reserve_tokens,
        window_tokens=budget.window_tokens,
        reserve_tokens=budget.reserve_tokens,
        by_part=alone.by_owner,
    )


def _plan(
    problem: _Problem, base: Rendering, ladders: Mapping[int, Sequence[Level]], costs: _Costs, found: _Found
) -> Plan:
    rendering, choice = found.rendering, found.choice
    levels = _levels(ladders, found.picks)
    chosen = {g.index: full(g) if g.pinned else levels.get(g.index, ladders[g.index][0]) for g in problem.groups}
    return Plan(
        messages=problem.messages(levels),
        ids=rendering.ids,
        prompt_tokens=rendering.tokens,
        budget=problem.budget,
        decisions=decide(problem.groups, chosen, rendering, problem.budget, base.tokens, costs.part),
        template_tokens=rendering.by_owner.get(TEMPLATE, 0),
        tools_tokens=rendering.by_owner.get(TOOLS, 0),
        value=choice.value if choice else 0.0,
        bound=choice.bound if choice else 0.0,
        shadow_price=choice.shadow_price if choice else 0.0,
        minimum=_minimum(problem, base, costs),
        counter_name=problem.counter.name,
        exact=problem.counter.exact,
        tools=problem.tools,
    )
