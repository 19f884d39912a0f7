"""A cascade: the first model answers, and the second is asked only where the first was not sure of each of its tokens.

Here one model plays both parts, so that the answer may be the same twice.

python examples/agents/cascade.py
"""

from __future__ import annotations

import math
from typing import Any

from ctxkit import Sampling
from ctxkit.context import Limits
from ctxkit.protocols import Model
from ctxkit_agents.cascade import Cascade
from ctxkit_agents.deferral import ChowQuantile
from ctxkit_agents.runtime.task import Outcome


def main(model: Model) -> Outcome[Any]:
    method = Cascade(
        [model, model],
        rule=ChowQuantile(0.0),  # the least sure token
        threshold=math.log(0.5),
        sampling=Sampling(max_tokens=12),
    )
    outcome = method.task("What is the capital of France?").run(paid_by=Limits(tokens=1_000))
    answer = outcome.value
    print(f"{answer.text!r} by model {answer.index + 1}; least sure token {math.exp(answer.scores[0]):.2f}\n")
    print(outcome.trace)
    return outcome


if __name__ == "__main__":
    from ctxkit.models.local import LocalModel

    main(LocalModel.load())
