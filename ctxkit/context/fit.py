"""fit: parts and a budget in, a plan out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ctxkit.context.budget import Budget
from ctxkit.context.costs import SEAM_TOKENS, Costs
from ctxkit.context.decision import Decision
from ctxkit.context.explain import decide
from ctxkit.context.found import Found
from ctxkit.context.group import Group, grouped, identified
from ctxkit.context.ladders import Ladders
from ctxkit.context.level import Compressor, Level, LevelRequest
from ctxkit.context.needs import unmet
from ctxkit.context.part import Part, SupportsPart
from ctxkit.context.plan import Plan
from ctxkit.context.problem import Levels, Problem
from ctxkit.context.utility import DefaultUtility, Utility
from ctxkit.errors import BudgetInfeasible, PartError
from ctxkit.protocols import TEMPLATE, TOOLS, Counter, Rendering, Tool

_TRIES = 64  # groups rendered to find the smallest


def fit(
    parts: Iterable[Part | SupportsPart],
    *,
    budget: Budget,
    counter: Counter,
    tools: Sequence[Tool] = (),
    compressors: Sequence[Compressor] = (),
    least_value: float = 0.0,
    utility: Utility | None = None,
    expandable: bool = False,
) -> Plan:
    """Choose what goes into the prompt, so that prompt and reserve fit the window.

    parts: Parts or search hits, in the order in which they should stand in the prompt.
    budget: window, reserve, floors and caps, in tokens of `counter`.
    counter: the target model, or a counter of its tokenizer and chat template.
    tools: tool schemas sent along; they are counted.
    compressors: make cheaper levels of the groups, asked only where not everything fits whole and only for groups that
        a level could help. `ctxkit.compression.standard()` needs no model.
    least_value: unpinned parts worth less (priority x relevance x recency) are left out even where they fit; a small
        model is distracted by passages that do not matter.
    utility: what a group is worth, if not priority x relevance x recency.
    expandable: offer the `expand` tool wherever the prompt shows a handle.

    Raises PartError for malformed parts, BudgetInfeasible where what must be in does not fit (it carries the smallest
    window that does), PromptError where the chat template refuses the messages.
    """
    return prepared(
        parts,
        budget=budget,
        counter=counter,
        tools=tools,
        compressors=compressors,
        least_value=least_value,
        utility=utility,
        expandable=expandable,
    ).plan()


def prepared(
    parts: Iterable[Part | SupportsPart],
    *,
    budget: Budget,
    counter: Counter,
    tools: Sequence[Tool] = (),
    compressors: Sequence[Compressor] = (),
    least_value: float = 0.0,
    utility: Utility | None = None,
    expandable: bool = False,
) -> Fitting:
    """What `fit` does before it chooses; a session goes on from here."""
    given = identified(list(parts))
    if not given:
        raise PartError("`fit` needs at least one part")
    utility = utility or DefaultUtility()
    problem = Problem(given, grouped(given), budget, counter, tuple(tools), utility, least_value, expandable=expandable)
    costs = Costs(counter)
    request = LevelRequest(problem.question, counter, expandable, problem.groups)
    return Fitting(problem, costs, Ladders(costs, compressors, request))


@dataclass(frozen=True)
class Fitting:
    """A problem with what was counted and made for it so far, so that it can be solved again under another budget."""

    problem: Problem
    costs: Costs
    ladders: Ladders

    def plan(self) -> Plan:
        from ctxkit.context.search import Search  # numpy, which importing ctxkit does without

        if (everything := self._everything()) is not None:
            return self._plan(everything)
        base = self._base()
        if base.rendering.tokens > self.problem.limit:
            raise self._infeasible(base.rendering if self._anything_fixed else self._least_alone.rendering)
        found = Search(self.problem, self.ladders, self.costs, base).run()
        if not found.levels and not self._anything_fixed:
            if self._least_alone.rendering.tokens > self.problem.limit:
                raise self._infeasible(self._least_alone.rendering)
            found = replace(self._least_alone, bound=max(found.bound, self._least_alone.value))
        return self._plan(found)

    def at_levels(self, levels: Levels) -> Plan | None:
        """The plan with these levels and no other choice, None where they do not fit, or need what is not there."""
        if unmet(self.problem, levels):
            return None
        rendering = self.problem.render(levels)
        if not self.problem.fits(rendering, levels):
            return None
        choosable = (group for group in self.problem.groups if not self.problem.is_fixed(group))
        bound = self.problem.value({group.index: self.ladders.whole(group) for group in choosable})
        return self._plan(Found(levels, rendering, self.problem.value(levels), bound))

    def again(self, budget: Budget | None = None, require: Iterable[str] = ()) -> Plan:
        """The plan under another budget, or with the groups of the parts named in `require` in whole."""
        names = set(require)
        forced = frozenset(group.index for group in self.problem.groups if names & {part.id for part in group.parts})
        return Fitting(self.problem.at(budget, forced), self.costs, self.ladders).plan()

    @property
    def _anything_fixed(self) -> bool:
        return any(self.problem.is_fixed(group) or group.required for group in self.problem.groups)

    def _everything(self) -> Found | None:
        """All that is wanted, whole, where that fits; nothing could be better, so nothing is searched."""
        wanted = [*self.problem.required, *self.problem.optional]
        if not (wanted or self._anything_fixed):
            return None
        if wanted and sum(self.costs.estimates(wanted)) > self.problem.limit:
            return None
        levels = {group.index: self.ladders.whole(group) for group in sorted(wanted, key=lambda group: group.index)}
        if unmet(self.problem, levels) or self.problem.led_by_user(levels) != levels:
            return None
        rendering = self.problem.render(levels)
        if not self.problem.fits(rendering, levels):
            return None
        value = self.problem.value(levels)
        return Found(levels, rendering, value, value)

    def _base(self) -> Found:
        """Required groups whole if that fits, else as small as they can be."""
        whole = self._required_whole
        return whole if whole.rendering.tokens <= self.problem.limit else self._smallest

    @cached_property
    def _required_whole(self) -> Found:
        return self._required_at({group.index: self.ladders.whole(group) for group in self.problem.required})

    @cached_property
    def _smallest(self) -> Found:
        """Required groups as small as they can be, and nothing else that is not pinned.

        Whole may be the smallest: a prompt that shows a handle carries the `expand` tool as well.
        """
        self.ladders.ask(self.problem.required)
        reduced = self._required_at({group.index: self.ladders.of(group)[0] for group in self.problem.required})
        return min(self._required_whole, reduced, key=lambda found: found.rendering.tokens)

    def _required_at(self, levels: Levels) -> Found:
        return Found(levels, self.problem.render(levels), self.problem.value(levels))

    @cached_property
    def minimum(self) -> int:
        """The smallest window for which the call succeeds: what must be in, or the smallest part where nothing must."""
        least = self._smallest if self._anything_fixed else self._least_alone
        return self.problem.budget.reserve_tokens + least.rendering.tokens

    def _infeasible(self, base: Rendering) -> BudgetInfeasible:
        budget = self.problem.budget
        minimum = base.tokens + budget.reserve_tokens
        named = ", ".join(f"`{owner}` {tokens:,}" for owner, tokens in base.by_owner.items() if tokens)
        return BudgetInfeasible(
            f"what must be in needs {base.tokens:,} tokens of {self.problem.limit:,} ({budget.window_tokens:,} less a "
            f"reserve of {budget.reserve_tokens:,}): {named}. Raise `window_tokens` to {minimum:,}, lower "
            "`reserve_tokens`, or pass a part with `pinned=False` (`required=True` keeps it in, at a lower level).",
            minimum=minimum,
            window_tokens=budget.window_tokens,
            reserve_tokens=budget.reserve_tokens,
            by_part=base.by_owner,
        )

    @cached_property
    def _least_alone(self) -> Found:
        """The smallest group, where nothing must be in: an empty prompt is no prompt."""
        smallest = self._smallest_group()
        if smallest is None:
            raise PartError(
                "no part is pinned, and every other part has relevance 0, is worth less than `least_value`, "
                "or exceeds the cap of its kind"
            )
        group, alone = smallest
        value = self.problem.values[group.index]
        return Found({group.index: self.ladders.whole(group)}, alone, value, value)

    def _smallest_group(self) -> tuple[Group, Rendering] | None:
        """The optional group that takes the fewest tokens on its own, counted exactly; None where caps refuse all.

        Counted are the groups whose planning cost is near the lowest, 64 at most.
        """
        planned = {group.index: self.costs.parts(group.parts) for group in self.problem.optional}
        best: tuple[Group, Rendering] | None = None
        cheapest = sorted(self.problem.optional, key=lambda group: (planned[group.index], group.index))
        for tries, group in enumerate(cheapest):
            # Once the planning cost is out of reach of the best found, no later group can beat it.
            if best is not None and (tries >= _TRIES or planned[group.index] > planned[best[0].index] + SEAM_TOKENS):
                break
            levels = {group.index: self.ladders.whole(group)}
            alone = self.problem.render(levels)
            if not self.problem.over_caps(alone, levels) and (best is None or alone.tokens < best[1].tokens):
                best = (group, alone)
        return best

    def _plan(self, found: Found) -> Plan:
        rendering, problem = found.rendering, self.problem
        return Plan(
            messages=problem.messages(found.levels),
            ids=rendering.ids,
            prompt_tokens=rendering.tokens,
            budget=problem.budget,
            by_owner=rendering.by_owner,
            template_tokens=rendering.by_owner.get(TEMPLATE, 0),
            tools_tokens=rendering.by_owner.get(TOOLS, 0),
            value=found.value,
            bound=max(found.bound, found.value),
            shadow_price=found.shadow_price,
            counter_name=problem.counter.name,
            exact=problem.counter.exact,
            tools=problem.tools_with(found.levels),
            _work=Work(self, found),
        )


@dataclass(frozen=True)
class Work:
    """What a plan needs to explain itself, computed when it is asked."""

    fitting: Fitting
    found: Found

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        return decide(self.fitting.problem, self.levels, self.found.rendering, self.fitting.costs)

    @property
    def levels(self) -> dict[int, Level]:
        return dict(self.found.levels)

    @property
    def minimum(self) -> int:
        return self.fitting.minimum

    def again(self, budget: Budget | None, require: Iterable[str]) -> Plan:
        return self.fitting.again(budget, require)
