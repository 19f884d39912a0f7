"""Compaction: choose anew, lower than need be so that it lasts, and with as long a beginning kept as is worth it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from ctxkit.context import Budget, Plan
from ctxkit.context.fit import Fitting
from ctxkit.context.group import Group
from ctxkit.context.level import DROPPED, Level
from ctxkit.context.problem import Levels, Problem
from ctxkit.errors import BudgetInfeasible
from ctxkit.session.cache import reused_tokens

_WORTH = 0.98  # of the best value; for less a longer prefix is not kept
_ASKED_SHARE = 0.75  # of the room, for what was asked for and does not fit whole
_TRIES = 6  # prefixes planned, at most
_EIGHTHS = 8  # steps in which older groups go


@dataclass(frozen=True)
class Compaction:
    """One compaction of a conversation.

    fitting: the conversation under its budget. kept: the levels at which it would stay as it is. known: ids of the
        parts of the previous prompt. target: share of the limit that is aimed at. asked: groups that come in whole, if
        what must be in leaves room for them. entering: levels of groups that come in reduced, if there is room.
        older: required groups that may go, the oldest first, where not all of them fit at their smallest.
    """

    fitting: Fitting
    previous: Plan | None
    kept: Levels
    known: frozenset[str]
    target: float
    asked: frozenset[int] = frozenset()
    entering: Levels = field(default_factory=dict)
    older: tuple[int, ...] = ()

    def run(self) -> tuple[Plan, Problem]:
        """The plan, and the problem that it solves. Raises BudgetInfeasible where the whole limit is not enough."""
        problem, held, best = self._best()
        plan = self._with_longest_prefix(problem, held, best)
        return replace(plan, budget=self.fitting.problem.budget), problem

    def _best(self) -> tuple[Problem, Levels, Plan]:
        """Within the target, else within the limit; what is asked for whole, else as much of it as is sensible.

        Returned are the problem, the levels that were held for what is asked for or comes in, and the plan.
        """
        for problem in self._with_asked() if self.asked else ():
            if plan := self._holding(problem, self.entering):
                return problem, self.entering, plan
        for problem, gone in self._tries():
            large = self._as_large_as_sensible(problem)
            for held in ({**gone, **self.entering, **large}, {**gone, **self.entering}, gone):
                if plan := self._holding(problem, held):
                    return problem, held, plan
        return self.fitting.problem, {}, self.fitting.plan()

    def _with_asked(self) -> Iterator[Problem]:
        """What is asked for whole: within the target; half way from the least that this takes to the limit; within it.

        A full prompt would have to be compacted again in the next turn, and what was asked for is much of this one.
        """
        whole = self.fitting.problem.at(None, self.asked)
        yield whole.at(lowered(whole.budget, self.target), self.asked)
        least = self._of(whole).minimum - whole.budget.reserve_tokens
        if least < whole.limit:
            yield whole.at(lowered(whole.budget, (least + whole.limit) / 2 / whole.limit), self.asked)
        yield whole

    def _tries(self) -> Iterator[tuple[Problem, Levels]]:
        """Problems, and the older groups that are dropped in them: none at first, then more and more.

        Some go before the prompt gets so full that the next turn would have to compact again.
        """
        whole = self.fitting.problem
        target, middle = (whole.at(lowered(whole.budget, share)) for share in (self.target, (1 + self.target) / 2))
        yield target, {}
        for problem in (middle, whole) if self.older else ():
            for k in range(_EIGHTHS + 1):
                yield problem, dict.fromkeys(self.older[: -(-len(self.older) * k // _EIGHTHS)], DROPPED)

    def _as_large_as_sensible(self, problem: Problem) -> Levels:
        """What is asked for and does not fit whole, in most of the room; empty where it has no size to choose."""
        groups, ladders = [problem.groups[index] for index in sorted(self.asked)], self.fitting.ladders
        older = [problem.groups[index] for index in self.older if groups]
        ladders.ask([*groups, *older])
        least = problem.render({group.index: ladders.of(group)[0] for group in older})
        room = int((problem.limit - least.tokens) * _ASKED_SHARE) // max(len(groups), 1)
        levels: dict[int, Level] = {}
        for group in groups:
            sizable = next((level for level in reversed(ladders.of(group)) if level.resize), None)
            level = sizable.resize(room) if sizable and sizable.resize and room > 0 else None
            if level is not None:
                levels[group.index] = level
        return levels

    def _with_longest_prefix(self, problem: Problem, held: Levels, best: Plan) -> Plan:
        """Hold the levels of more and more groups, from the first on, while that is worth nearly as much as the best.

        Where the tool schemas change, nothing behind them can be reused anyway.
        """
        if self.previous is None or self.previous.tools != best.tools:
            return best
        groups = self._decided(problem)
        found, low, high, k = best, 0, len(groups), len(groups)
        for _ in range(_TRIES):
            if low >= high:
                break
            kept = {group.index: self.kept.get(group.index, DROPPED) for group in groups[:k]}
            plan = self._holding(problem, {**kept, **held})
            if plan is None or plan.value < _WORTH * best.value:
                high = k - 1
            else:
                plan = replace(plan, bound=max(best.bound, plan.value), shadow_price=best.shadow_price)
                low, found = k, max(found, plan, key=self._merit)
            k = (low + high + 1) // 2
        return found

    def _decided(self, problem: Problem) -> Sequence[Group]:
        """The groups with a choice that began in the previous prompt, in order."""
        groups = (group for group in problem.groups if not problem.is_fixed(group) and group.parts[0].id in self.known)
        return sorted(groups, key=lambda group: group.positions[0])

    def _holding(self, problem: Problem, held: Levels) -> Plan | None:
        """The best plan with these groups at these levels; None where there is none."""
        if not held:
            with suppress(BudgetInfeasible):
                return self._of(problem).plan()
            return None
        try:
            chosen = self._of(replace(problem, held=held)).plan().levels
        except BudgetInfeasible:
            return None
        levels = {**chosen, **{index: level for index, level in held.items() if level.parts}}
        leads = len(problem.led_by_user(levels)) == len(levels)
        return self._of(problem).at_levels(levels) if leads else None

    def _merit(self, plan: Plan) -> tuple[int, float]:
        return reused_tokens(self.previous, plan, self.fitting.problem.counter), plan.value

    def _of(self, problem: Problem) -> Fitting:
        return Fitting(problem, self.fitting.costs, self.fitting.ladders)


def lowered(budget: Budget, share: float) -> Budget:
    """The budget with this share of its prompt, 1 token at least; floors shrink with it."""
    prompt = max(int(budget.prompt_tokens * share), 1)
    floors = {kind: tokens * prompt // budget.prompt_tokens for kind, tokens in budget.floors.items()}
    return replace(budget, window_tokens=budget.reserve_tokens + prompt, floors=floors)
