"""How much a model's answers depend on how the same thing is asked.

python examples/agents/sensitivity.py
"""

from __future__ import annotations

from typing import Any

from ctxkit import Sampling
from ctxkit.protocols import Model
from ctxkit_agents import Outcome
from ctxkit_agents.sensitivity import PromptSensitivity

SETS = [
    ["What is the capital of France?", "Which city is the capital of France?", "france capital city name?"],
    ["Name a colour.", "Say the name of any colour."],
]


def main(model: Model) -> Outcome[Any]:
    outcome = PromptSensitivity(model, Sampling(max_tokens=12)).task(SETS).run()
    print(outcome.value)
    for one in outcome.value.sets:
        for asked, said in zip(one.prompts, one.answers, strict=True):
            print(f"  {asked!r} -> {said!r}")
    print(f"{outcome.value.tokens_read:,} tokens read by scores, {outcome.value.naive_tokens:,} without sharing")
    return outcome


if __name__ == "__main__":
    from ctxkit.models.local import LocalModel

    main(LocalModel.load())
