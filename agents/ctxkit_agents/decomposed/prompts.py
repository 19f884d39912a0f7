"""Prompts with demonstrations, which are the first to go where the window is small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctxkit.context import Plan
from ctxkit.context.part import Part, instruction
from ctxkit.errors import BudgetInfeasible
from ctxkit.protocols import Model, Sampling
from ctxkit_agents.runtime.job import Job


@dataclass
class Demonstrated:
    """before, demonstrations, after, fitted into the model's window with as many demonstrations as it holds.

    A demonstration is there whole or not at all, and the last go first. Says so in the job's events, once per number.
    """

    job: Job
    model: Model
    sampling: Sampling
    demonstrations: Sequence[str]
    before: Sequence[Part]
    after: Sequence[Part]
    said: int = -1

    def plan(self, end: Sequence[Part] = ()) -> Plan:
        """The prompt with `end` behind it. Raises BudgetInfeasible where it does not fit without demonstrations."""
        shown = [instruction(text, id=f"demonstration-{at}") for at, text in enumerate(self.demonstrations, 1)]
        for kept in range(len(shown), -1, -1):
            plan = self._try([*self.before, *shown[:kept], *self.after, *end], last=not kept)
            if plan is not None:
                self._say(kept, plan)
                return plan
        raise AssertionError("unreachable")

    def _try(self, parts: Sequence[Part], *, last: bool) -> Plan | None:
        """The plan, None where fewer demonstrations would leave more room for what is wanted more."""
        try:
            plan = self.job.plan(self.model, parts, self.sampling)
        except BudgetInfeasible:
            if last:
                raise
            return None
        return plan if last or all(part.pinned for part in parts) or not plan.dropped else None

    def _say(self, kept: int, plan: Plan) -> None:
        wanted = len(self.demonstrations)
        if kept < wanted and kept != self.said:
            self.job.degraded(f"{kept} of {wanted} demonstrations fitted into the prompt")
        if plan.dropped:
            self.job.degraded(f"{len(plan.dropped)} of {len(plan.decisions)} parts did not fit into the prompt")
        self.said = kept
