"""A question broken into steps: the model writes them, and code answers what code answers best.

    python examples/agents/decomposed.py

Letters are read by Python, not by the model; each step and its answer is printed. With the extra `structured` the model
can write nothing but steps; without, a small one may not keep to the form, and what stopped it is printed.
"""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from typing import Any

from ctxkit import Sampling
from ctxkit.context import Limits, Run
from ctxkit.protocols import Model
from ctxkit_agents import Outcome
from ctxkit_agents.decomposed import Decomposed
from ctxkit_agents.errors import AgentError

DEMONSTRATION = """
QC: Take the first letters of the words in "Augusta Ada King" and concatenate them.
QS: (select) [split] "Augusta Ada King"
A: ["Augusta", "Ada", "King"]
QS: (project_values) [first] #1
A: ["A", "A", "K"]
QS: (select) [merge] #2
A: "AAK"
QS: [EOQ]
"""
QUESTION = 'Take the first letters of the words in "Alan Mathison Turing" and concatenate them.'


CONSTRAINED = find_spec("xgrammar") is not None  # the extra `structured`


def split(question: str) -> list[str]:
    """splits a quoted text into words"""
    return " ".join(re.findall(r'"([^"]*)"', question)).split()


def first(question: str) -> str:
    """the first letter of a word"""
    return question.strip('"')[:1]


def merge(question: str) -> str:
    """joins a list of texts"""
    return "".join(map(str, json.loads(question)))


def main(model: Model) -> Outcome[Any]:
    method = Decomposed(
        model,
        {"split": split, "first": first, "merge": merge},
        demonstrations=[DEMONSTRATION],
        max_steps=3,
        shown_chars=60,
        sampling=Sampling(max_tokens=48, stop=("\nA:", "\nQC:", "\nQS:")),
        constrained=CONSTRAINED,
    )
    task, run = method.task(QUESTION), Run(Limits(tokens=8_000))
    outcome: Outcome[Any]
    try:
        outcome = task.run(paid_by=run)
    except AgentError as error:  # a small model that is not constrained does not keep to the form
        outcome = Outcome(f"stopped: {error}", task.trace, run.report())
    print(outcome.value, outcome.trace, outcome.spent, sep="\n\n")
    return outcome


if __name__ == "__main__":
    from ctxkit.models.local import LocalModel

    main(LocalModel.load())
