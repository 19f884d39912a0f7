"""Turn: one planning of a conversation that was planned before: keep it, or compact it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ctxkit.context import Plan
from ctxkit.context.expand import EXPAND_NAME
from ctxkit.context.fit import Fitting
from ctxkit.context.group import Group
from ctxkit.context.problem import Levels, Problem
from ctxkit.errors import BudgetInfeasible
from ctxkit.protocols import TOOLS
from ctxkit.session.cache import CacheReport, broke_at, reused_tokens, rewritten_by_template
from ctxkit.session.compact import Compaction, lowered
from ctxkit.session.kept import Sent, entering_levels, kept_levels, sent_at
from ctxkit.session.prices import CachePrices, break_even_turns


@dataclass(frozen=True)
class Settled:
    """What a turn leaves behind: its plan, what became of each part by id, and what the cache can make of it."""

    plan: Plan
    sent: Mapping[str, Sent]
    cache: CacheReport


@dataclass(frozen=True)
class Turn:
    """One planning.

    fitting: the conversation so far, under its budget. before: the turn before, None for the first. going_on: ids of
    the last tool round, which the model is to go on from. The rest are the session's.
    """

    fitting: Fitting
    before: Settled | None
    prices: CachePrices
    target: float
    expected_turns: float | None
    result_tokens: int | None = None
    going_on: frozenset[str] = frozenset()

    def run(self) -> Settled:
        """Everything as it was sent and the new behind it, where that fits; else, or where it pays, a compaction.

        Raises BudgetInfeasible where what must be in does not fit.
        """
        kept = self.fitting.at_levels(self._kept)
        if kept is None:
            plan, problem = self._compaction.run()
            tokens = self._problem.render(self._kept).tokens
            return self._compacted(plan, problem, tokens, f"as it was it would take {tokens:,}")
        return self._paying(kept) or Settled(kept, sent_at(self._problem, self._kept), self._keeping(kept))

    @property
    def _problem(self) -> Problem:
        return self.fitting.problem

    @property
    def _previous(self) -> Plan | None:
        return self.before.plan if self.before else None

    @property
    def _sent(self) -> Mapping[str, Sent]:
        return self.before.sent if self.before else {}

    @cached_property
    def _kept(self) -> Levels:
        return self._problem.led_by_user({**kept_levels(self._problem, self._sent), **self._entering})

    @cached_property
    def _entering(self) -> Levels:
        """Tool rounds that no prompt showed yet, where their results are too long to come in whole."""
        if self.result_tokens is None:
            return {}
        new = [
            group
            for group in self._problem.groups
            if not self._problem.is_fixed(group)
            and not _expands(group)
            and self._sent.keys().isdisjoint(part.id for part in group.parts)
        ]
        return entering_levels(new, self.fitting, self.result_tokens)

    @property
    def _compaction(self) -> Compaction:
        last = [group for group in self._problem.required if self._goes_on(group)]
        return Compaction(
            self.fitting,
            self._previous,
            self._kept,
            frozenset(self._sent),
            self.target,
            asked=frozenset(group.index for group in last if _expands(group)),
            entering=self._entering,
            older=tuple(group.index for group in self._problem.required if group not in last),
        )

    def _goes_on(self, group: Group) -> bool:
        return any(part.id in self.going_on for part in group.parts)

    def _paying(self, kept: Plan) -> Settled | None:
        """A compaction that need not be, where it pays within the turns that are expected."""
        limit = lowered(self._problem.budget, self.target).prompt_tokens
        if self.expected_turns is None or self._previous is None or kept.prompt_tokens <= limit:
            return None
        try:
            plan, problem = self._compaction.run()
        except BudgetInfeasible:
            return None
        turns = self._pays_after(plan, kept.prompt_tokens)
        if turns is None or turns >= self.expected_turns:
            return None
        saved = kept.prompt_tokens - plan.prompt_tokens
        why = f"that saves {saved:,} tokens on each of {self.expected_turns:,g} expected turns"
        return self._compacted(plan, problem, kept.prompt_tokens, why)

    def _pays_after(self, plan: Plan, tokens_before: int) -> float | None:
        """Turns after which the plan was worth its rewriting; None for the first prompt, which rewrites nothing."""
        if self._previous is None:
            return None
        history, reused = self._previous.prompt_tokens, self._reused(plan)
        return break_even_turns(history, reused, tokens_before - plan.prompt_tokens, self.prices)

    def _compacted(self, plan: Plan, problem: Problem, tokens_before: int, why: str) -> Settled:
        reason = f"compacted to {plan.prompt_tokens:,} of {self._problem.limit:,} tokens: {why}"
        pays = self._pays_after(plan, tokens_before)
        return Settled(plan, sent_at(problem, plan.levels), self._report(plan, reason, pays, compactions=1))

    def _keeping(self, plan: Plan) -> CacheReport:
        previous, broken = self._previous, broke_at(self._previous, plan)
        if previous is None:
            reason = "the first prompt, with everything in it"
        elif broken is not None:
            reason = self._why_broken(broken)
        elif rewritten_by_template(previous, plan, self._problem.counter):
            reason = (
                "every message is sent as before, but the chat template writes them otherwise now that more follows"
            )
        else:
            reason = "everything is sent as before, and what is new follows"
        return self._report(plan, reason)

    def _why_broken(self, broken: str) -> str:
        if broken == TOOLS:
            return "the tool schemas are not those of the previous prompt"
        before = self._sent.get(broken)
        part = next((part for part in self._problem.parts if part.id == broken), None)
        if part is None or before is None:
            return f"{broken!r} is no part of the conversation any more"
        if not before.is_of(part):
            return f"{broken!r} is another message than it was, since later messages changed it"
        if before.became != "whole":
            return f"{broken!r} was not sent whole and must be in whole now"
        return f"another message stands in the place of {broken!r} now"

    def _reused(self, plan: Plan) -> int:
        return reused_tokens(self._previous, plan, self._problem.counter)

    def _report(self, plan: Plan, reason: str, pays: float | None = None, compactions: int = 0) -> CacheReport:
        reused = self._reused(plan)
        return CacheReport(
            reused_tokens=reused,
            prefill_tokens=plan.prompt_tokens - reused,
            reuse=reused / self._previous.prompt_tokens if self._previous else 0.0,
            broke_at=broke_at(self._previous, plan),
            reason=reason,
            pays_after_turns=pays,
            compactions=compactions + (self.before.cache.compactions if self.before else 0),
        )


def _expands(group: Group) -> bool:
    """Whether the group is a round in which the model asked for an original."""
    calls = (call.get("function") or {} for part in group.parts for call in part.tool_calls)
    return any(function.get("name") == EXPAND_NAME for function in calls)
