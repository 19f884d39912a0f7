"""Many small questions in one prompt, asked again in another order, and what that saves.

python examples/agents/batch_prompt.py
"""

from __future__ import annotations

from typing import Any

from ctxkit import Limits, Sampling
from ctxkit.models.local import LocalModel
from ctxkit.protocols import Model
from ctxkit_agents.batch_prompt import BatchPrompt
from ctxkit_agents.runtime.task import Outcome

REVIEWS = [
    "The soup was cold and the waiter rude.",
    "Best pasta in town!",
    "I will never come back.",
    "Lovely garden, kind people.",
]


def main(model: Model) -> Outcome[Any]:
    """A small model gives few lines that can be read: `constrained=True` makes it, with the extra "structured"."""
    batch = BatchPrompt(
        model,
        "Is this review of a restaurant positive or negative?",
        options=("positive", "negative"),
        confidence=False,
        rounds=2,
        sampling=Sampling(max_tokens=8),
    )
    outcome = batch.task(REVIEWS).run(paid_by=Limits(tokens=2_000))
    for review, one in zip(REVIEWS, outcome.value.answers, strict=True):
        print(f"{one.answer or one.note:10} {one.votes}  {review}")
    result = outcome.value
    alone = result.alone_tokens_in + result.alone_tokens_out
    print(f"{outcome.spent.tokens:,} tokens in {result.calls} calls; one by one, asked once each: {alone:,}")
    print(outcome.trace)
    return outcome


if __name__ == "__main__":
    main(LocalModel.load())
