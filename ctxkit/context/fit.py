"""fit: parts and a budget in, a plan out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ctxkit.context.budget import Budget
from ctxkit.context.explain import decide
from ctxkit.context.group import Group, grouped, identified
from ctxkit.context.level import Compressor, Level, dropped, full
from ctxkit.context.part import Part, SupportsPart
from ctxkit.context.plan import Plan
from ctxkit.context.problem import Costs, Problem
from ctxkit.context.search import Found, Ladders, search
from ctxkit.errors import BudgetInfeasible, PartError
from ctxkit.protocols import TEMPLATE, TOOLS, Counter, Rendering, Tool


def fit(
    parts: Iterable[Part | SupportsPart],
    *,
    budget: Budget,
    counter: Counter,
    tools: Sequence[Tool] = (),
    compressors: Sequence[Compressor] = (),
    least_value: float = 0.0,
) -> Plan:
    """Choose what goes into the prompt, so that prompt and reserve fit the window.

    parts: Parts or search hits, in the order in which they should stand in the prompt.
    budget: window, reserve, floors and caps, in tokens of `counter`.
    counter: the target model, or a counter of its tokenizer and chat template.
    tools: tool schemas sent along; they are counted.
    compressors: make cheaper levels of the groups, asked only where not everything fits whole.
    least_value: unpinned parts worth less (priority x relevance) are left out even where they fit; a small model is
        distracted by passages that do not matter.

    Raises PartError for malformed parts, BudgetInfeasible where the pinned parts alone do not fit (it carries the
    smallest window that does), PromptError where the chat template refuses the messages.
    """
    given = identified(list(parts))
    if not given:
        raise PartError("`fit` needs at least one part")
    problem = Problem(given, grouped(given), budget, counter, tuple(tools), least_value)
    base = problem.render({})
    if base.tokens > problem.limit:
        raise _infeasible(problem, base)
    ladders: Ladders = {group.index: [dropped(group), full(group)] for group in problem.optional}
    costs = Costs(counter, [full(group) for group in problem.unpinned])
    found = search(problem, base, ladders, costs)
    if compressors and not all(found.picks.values()):
        ladders = {group.index: _ladder(group, compressors, problem.question) for group in problem.optional}
        costs.add(level for ladder in ladders.values() for level in ladder)
        found = search(problem, base, ladders, costs)
    if not any(group.pinned for group in problem.groups) and not any(found.picks.values()):
        found = _smallest_alone(problem, costs, found)
    return _plan(problem, base, ladders, costs, found)


def _ladder(group: Group, compressors: Sequence[Compressor], question: str) -> list[Level]:
    """Every level of a group, dropped first. A compressor is asked for its levels only here."""
    made = [level for compressor in compressors for level in compressor.levels(group, question)]
    return [dropped(group), *made, full(group)]


def _infeasible(problem: Problem, base: Rendering) -> BudgetInfeasible:
    budget = problem.budget
    minimum = base.tokens + budget.reserve_tokens
    named = ", ".join(f"`{owner}` {tokens:,}" for owner, tokens in base.by_owner.items() if tokens)
    return BudgetInfeasible(
        f"what must be in needs {base.tokens:,} tokens of {problem.limit:,} ({budget.window_tokens:,} less a reserve "
        f"of {budget.reserve_tokens:,}): {named}. Raise `window_tokens` to {minimum:,}, lower `reserve_tokens`, "
        "or pass a part with `pinned=False`.",
        minimum=minimum,
        window_tokens=budget.window_tokens,
        reserve_tokens=budget.reserve_tokens,
        by_part=base.by_owner,
    )


def _smallest_alone(problem: Problem, costs: Costs, found: Found) -> Found:
    """Nothing is pinned and nothing was picked. An empty prompt is no prompt: the smallest group, or a refusal."""
    smallest = problem.smallest(costs)
    if smallest is None:
        raise PartError(
            "no part is pinned, and every other part has relevance 0, is worth less than `least_value`, "
            "or exceeds the cap of its kind"
        )
    group, alone = smallest
    if alone.tokens <= problem.limit:
        return Found({**found.picks, group.index: 1}, alone, group.value, max(found.bound, group.value))
    budget = problem.budget
    raise BudgetInfeasible(
        f"no part fits into {problem.limit:,} tokens ({budget.window_tokens:,} less a reserve of "
        f"{budget.reserve_tokens:,}); the smallest, `{group.parts[0].id}`, needs {alone.tokens:,}",
        minimum=alone.tokens + budget.reserve_tokens,
        window_tokens=budget.window_tokens,
        reserve_tokens=budget.reserve_tokens,
        by_part=alone.by_owner,
    )


def _minimum(problem: Problem, base: Rendering, costs: Costs) -> int:
    """The smallest window for which the call succeeds: the pinned parts, or the smallest part where none is pinned."""
    pinned = any(group.pinned for group in problem.groups)
    smallest = None if pinned else problem.smallest(costs)
    return problem.budget.reserve_tokens + (smallest[1].tokens if smallest else base.tokens)


def _plan(problem: Problem, base: Rendering, ladders: Ladders, costs: Costs, found: Found) -> Plan:
    levels = found.levels(ladders)
    chosen: Mapping[int, Level] = {
        group.index: full(group) if group.pinned else levels.get(group.index, dropped(group))
        for group in problem.groups
    }
    rendering = found.rendering
    return Plan(
        messages=problem.messages(levels),
        ids=rendering.ids,
        prompt_tokens=rendering.tokens,
        budget=problem.budget,
        decisions=decide(problem, chosen, rendering, base, costs),
        template_tokens=rendering.by_owner.get(TEMPLATE, 0),
        tools_tokens=rendering.by_owner.get(TOOLS, 0),
        value=found.value,
        bound=found.bound,
        shadow_price=found.shadow_price,
        minimum=_minimum(problem, base, costs),
        counter_name=problem.counter.name,
        exact=problem.counter.exact,
        tools=problem.tools,
    )
