"""Several samples of one question, and the answer that most of them came to.

python examples/agents/vote.py
"""

from __future__ import annotations

from typing import Any

from ctxkit import Limits, Sampling
from ctxkit.models.local import LocalModel
from ctxkit.protocols import Model
from ctxkit_agents.runtime.task import Outcome
from ctxkit_agents.vote import Vote

QUESTION = "A box holds 6 eggs. How many eggs are in 4 boxes? Answer in one short sentence, with the number."


def main(model: Model) -> Outcome[Any]:
    """Three samples at most; two where they agree. Take more of them for a real question."""
    vote = Vote(model, samples=3, sampling=Sampling(max_tokens=20, temperature=0.7), seed=7)
    outcome = vote.task(QUESTION).run(paid_by=Limits(tokens=1_000))
    print("answer:", outcome.text, "  votes:", outcome.value.votes)
    print(outcome.trace)
    return outcome


if __name__ == "__main__":
    main(LocalModel.load())
