"""Three roles in place of one agent: a planner, a caller of tools, a summarizer; each on a share of the run's tokens.

    python examples/agents/planner_caller_summarizer.py

With the extra `structured` planner and caller can write nothing but their form; without, a small model may not keep to
it, and what stopped it is printed.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from ctxkit import Sampling
from ctxkit.context import Limits, Run
from ctxkit.protocols import Model
from ctxkit_agents import Outcome
from ctxkit_agents.errors import AgentError
from ctxkit_agents.planner_caller_summarizer import PlannerCallerSummarizer

LEVELS = {"Rhine": 231, "Moselle": 198}


CONSTRAINED = find_spec("xgrammar") is not None  # the extra `structured`


def level(river: str) -> str:
    """The level of a river at the nearest gauge."""
    return f"{river}: {LEVELS[river]} cm"


def main(model: Model) -> Outcome[Any]:
    method = PlannerCallerSummarizer(
        model,
        [level],
        shares={"planner": 0.5, "caller": 0.3, "summarizer": 0.2},
        max_steps=2,
        sampling=Sampling(max_tokens=56),
        constrained=CONSTRAINED,
    )
    task, run = method.task("How high is the Rhine?"), Run(Limits(tokens=6_000))
    outcome: Outcome[Any]
    try:
        outcome = task.run(paid_by=run)
    except AgentError as error:  # a small model that is not constrained does not keep to the form
        outcome = Outcome(f"stopped: {error}", task.trace, run.report())
    print(outcome, outcome.trace, outcome.spent, sep="\n\n")
    return outcome


if __name__ == "__main__":
    from ctxkit.models.local import LocalModel

    main(LocalModel.load())
