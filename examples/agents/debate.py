"""Two agents answer a question, read each other, and answer again: in text, then in beliefs (CIPHER).

A belief says of each position which tokens it may be. The packaged model is far too small to gain by debating; the
example shows what is exchanged, what it costs and how small it is.

python examples/agents/debate.py
"""

from __future__ import annotations

from typing import Any

from ctxkit.context import Limits
from ctxkit.models.local import LocalModel
from ctxkit.protocols import Model
from ctxkit_agents.debate.cipher_debate import CipherDebate
from ctxkit_agents.debate.text_debate import TextDebate
from ctxkit_agents.runtime.task import Outcome

QUESTION = "A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts does it take?"
SHORT = "Answer in one short sentence."


def main(model: Model) -> Outcome[Any]:
    settings: dict[str, Any] = {"temperatures": (0.2, 0.6), "rounds": 2, "max_tokens": 6, "instruction": SHORT}
    in_text = TextDebate(model, **settings).task(QUESTION).run(paid_by=Limits(tokens=2_000))
    print(in_text.trace, end="\n\n")
    in_beliefs = CipherDebate(model, **settings).task(QUESTION).run(paid_by=Limits(tokens=2_000))
    print(in_beliefs.trace, end="\n\n")
    for statement in in_beliefs.value.rounds[0]:
        print(f"agent {statement.agent}: {statement.belief!r}")
        if isinstance(model, LocalModel) and statement.belief is not None:
            print(f"  {statement.belief.to_text(model.counter)!r}")
    print("answer:", repr(in_beliefs.text))
    return in_beliefs


if __name__ == "__main__":
    main(LocalModel.load())
