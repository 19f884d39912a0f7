"""A reply made of what several sources know: think of the user, plan whom to ask, ask them at once, reply.

    python examples/agents/think_plan_execute.py

With the extra `structured` the planner can write nothing but a plan of these tools; without, a small model may not keep
to the form, and what stopped it is printed.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from ctxkit import Sampling
from ctxkit.context import Limits, Run, turn
from ctxkit.protocols import Model
from ctxkit_agents import Outcome
from ctxkit_agents.errors import AgentError
from ctxkit_agents.think_plan_execute import ThinkPlanExecute

CONSTRAINED = find_spec("xgrammar") is not None  # the extra `structured`


def persona(query: str) -> str:
    """What is known about the user."""
    return "Ann lives in Cologne, has a dog, and dislikes crowds."


def trips(query: str) -> str:
    """Day trips near Cologne."""
    return "The Siebengebirge has forest paths; the Laacher See is a quiet lake; Drachenfels is crowded on Sundays."


def main(model: Model) -> Outcome[Any]:
    sampling = Sampling(max_tokens=56)
    method = ThinkPlanExecute(
        model, {"persona": persona, "trips": trips}, max_calls=2, sampling=sampling, constrained=CONSTRAINED
    )
    history = [turn("user", "What a week."), turn("assistant", "It is over now. Do you want to get out?")]
    task, run = method.task("Yes. Where could I go on Sunday?", history=history), Run(Limits(tokens=6_000))
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
