"""Which passages, and which words of a prompt, made a model say what it said.

python examples/agents/attribution.py
"""

from __future__ import annotations

from typing import Any

from ctxkit import Budget, Sampling, fit, passage, question
from ctxkit.protocols import Model
from ctxkit_agents import Outcome
from ctxkit_agents.attribution import LeaveOneOut, with_influence
from ctxkit_agents.reagent import ReAGent

SAMPLING = Sampling(max_tokens=16)


def main(model: Model) -> Outcome[Any]:
    parts = [
        passage("Roses grow along the southern wall of the garden.", id="roses"),
        passage("The ferry to the island leaves at nine from pier 4.", id="timetable"),
        passage("The lighthouse was built in 1891.", id="lighthouse"),
        question("When does the ferry leave?"),
    ]
    outcome = LeaveOneOut(model, SAMPLING).task(parts).run()
    print(outcome.value, end="\n\n")

    # What turned out to be of no use gives way first, where there is less room.
    learned = with_influence(parts, outcome.value)
    whole = fit(learned, budget=Budget(model.window_tokens, 16), counter=model.counter)
    print(fit(learned, budget=Budget(whole.minimum + 30, 16), counter=model.counter), end="\n\n")

    words = ReAGent(model, most_steps=8).task("Which city is the capital of France?", answer="Paris").run()
    print(words.text)
    print("most important:", ", ".join(repr(token.text) for token in words.value.top(3)))
    return outcome


if __name__ == "__main__":
    from ctxkit.models.local import LocalModel

    main(LocalModel.load())
