"""Nudging: a base model writes, and a small tuned one gives it the next words where it is unsure. Who wrote what.

Here one model plays both parts: as the base it goes on with plain text, as the nudger it has its chat template.

python examples/agents/nudging.py
"""

from __future__ import annotations

from typing import Any

from ctxkit import Sampling
from ctxkit.context import Limits
from ctxkit.protocols import Model
from ctxkit_agents.nudging import Nudging
from ctxkit_agents.runtime.task import Outcome


def main(model: Model) -> Outcome[Any]:
    method = Nudging(
        base=model,
        nudger=model,
        gamma=0.4,  # below this probability of its likeliest token, the base is helped
        plain="Question: {prompt}\nAnswer: ",
        sampling=Sampling(max_tokens=14),
    )
    outcome = method.task("Why is the sky blue?").run(paid_by=Limits(tokens=1_000))
    answer = outcome.value
    print(answer.table())
    print(f"\n{answer.text!r}\n{answer.nudged_share:.0%} nudged; base {answer.base}; nudger {answer.nudger}\n")
    print(outcome.trace)
    return outcome


if __name__ == "__main__":
    from ctxkit.models.local import LocalModel

    main(LocalModel.load())
