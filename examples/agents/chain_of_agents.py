"""A text longer than the window, read by a chain of workers; and the same question with a worker that is no model.

python examples/agents/chain_of_agents.py
"""

from __future__ import annotations

from typing import Any

from ctxkit.context import Limits, turn
from ctxkit.models.local import LocalModel
from ctxkit.protocols import Model
from ctxkit_agents import Outcome
from ctxkit_agents.chain_of_agents import ChainAnswer, ChainOfAgents, ExtractiveWorker

SPOKEN = [
    ("Ann", "Good morning. Let us begin with the harbour."),
    ("Ben", "The old crane failed twice in March. We lost four days."),
    ("Ann", "What would a new crane cost?"),
    ("Cy", "The offer for a new crane is 310,000 crowns."),
    ("Ann", "Then the ferry. Is the timetable settled?"),
    ("Cy", "Nearly. The first boat leaves at six."),
    ("Dee", "The school asked for one at a quarter past two."),
]
MEETING = [turn("user", said, id=f"turn-{i}", name=who) for i, (who, said) in enumerate(SPOKEN)]
QUESTION = "What does the new crane cost?"


def main(model: Model) -> Outcome[Any]:
    """By a worker without a model, then by a chain of workers, each with a window of 280 tokens."""
    tight = {"evidence_tokens": 64, "answer_tokens": 16}
    extracting = ChainOfAgents(ExtractiveWorker(), manager=model, **tight)
    show(extracting.task(MEETING, question=QUESTION).run(paid_by=Limits(tokens=1_000)))

    chain = ChainOfAgents(model, worker_window_tokens=280, unit_tokens=24, quote_tokens=16, **tight)
    outcome = chain.task(MEETING, question=QUESTION).run(paid_by=Limits(tokens=5_000))
    show(outcome)
    return outcome


def show(outcome: Outcome[ChainAnswer]) -> None:
    value = outcome.value
    print(f"{outcome.text.strip()}\n")
    for one in value.evidence:
        print(f'  {one.source}, characters {one.start}-{one.end}: "{one.text}"')
    print(f"\n{outcome.trace}\n{value.workers} workers, the longest prompt had {value.peak_prompt_tokens} tokens\n")


if __name__ == "__main__":
    main(LocalModel.load())
