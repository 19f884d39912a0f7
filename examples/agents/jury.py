"""Two answers compared by a model and by a rule, in both orders; who does not answer in the form is left out.

python examples/agents/jury.py
"""

from __future__ import annotations

import json
import re
from typing import Any

from ctxkit import Limits, Sampling
from ctxkit.models.local import LocalModel
from ctxkit.models.requests import Request
from ctxkit.protocols import Model
from ctxkit.testing import ScriptedModel
from ctxkit_agents.jury import Jury
from ctxkit_agents.rubrics import PREFERENCE
from ctxkit_agents.runtime.task import Outcome

CONVERSATION = [{"role": "user", "content": "How do I keep coffee beans fresh?"}]
RESPONSES = [
    "Keep the beans whole, in a closed tin, away from light and heat.",
    "Tea is a drink that many people like.",
]


def by_rule(request: Request) -> str:
    """Judges by the words of the question that an answer takes up; a reward model would stand here."""
    asked = set(re.findall(r"\w{4,}", CONVERSATION[0]["content"].lower()))
    answers = re.findall(r"^Answer [AB]:\n(.*)$", request.messages[-1].content, re.MULTILINE)
    taken_up = [len(asked & set(re.findall(r"\w{4,}", answer.lower()))) for answer in answers]
    winner = "tie" if taken_up[0] == taken_up[1] else "AB"[taken_up.index(max(taken_up))]
    return json.dumps({"reason": f"takes up {max(taken_up)} words of the question", "winner": winner})


def main(model: Model) -> Outcome[Any]:
    """Small models need `constrained=True` (with the extra "structured"); larger ones answer in the form."""
    judges = [model, ScriptedModel(by_rule, name="rule")]
    jury = Jury(judges, [PREFERENCE], sampling=Sampling(max_tokens=24))
    outcome = jury.task(CONVERSATION, RESPONSES).run(paid_by=Limits(tokens=6_000))
    result = outcome.value
    print("winner:", "a tie" if result.winner is None else RESPONSES[result.winner])
    print("scores:", result.scores, "agreement:", result.agreement)
    for one in result.opinions:
        print(f"{one.model} by {one.rubric}: {one.winner} (swayed by the order: {one.swayed}) {one.reason}")
    print("left out:", outcome.degraded or "nobody")
    print(outcome.trace)
    return outcome


if __name__ == "__main__":
    main(LocalModel.load())
