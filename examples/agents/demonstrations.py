"""Which examples to label, and how many of them fit before a question.

python examples/agents/demonstrations.py
"""

from __future__ import annotations

from typing import Any

from ctxkit import Limits, Sampling, question, system
from ctxkit.models.local import LocalModel
from ctxkit.protocols import Model
from ctxkit.retrieval import HashingEncoder
from ctxkit_agents.demonstrations import Demonstrations, Example, select_to_annotate
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.task import Outcome, Task

MESSAGES = [
    "my card was stolen last night",
    "the card does not work at the till",
    "my card is gone, I think it was stolen",
    "how do I change my address",
    "I moved house, change my address please",
    "what is the fee for a transfer",
    "is there a fee for sending money abroad",
    "the transfer has not arrived",
]
LABELS = {"stolen": "block the card", "address": "change of address", "fee": "fees", "transfer": "transfers"}
ASKED = "someone has stolen my card"


def label(message: str) -> str:
    """Stands for the person who labels what was chosen."""
    return next((name for word, name in LABELS.items() if word in message), "other")


def main(model: Model) -> Outcome[Any]:
    """A better encoder gives better neighbours: `SentenceTransformerEncoder`, for one."""
    encoder = HashingEncoder(dims=256)
    chosen = select_to_annotate(MESSAGES, encoder, 5, k=3)
    pool = [Example(MESSAGES[number], label(MESSAGES[number])) for number in chosen]
    demonstrations = Demonstrations(pool, encoder, k=4, diversity=0.3)
    sampling = Sampling(max_tokens=12, stop=("\n",))

    async def work(job: Job) -> str:
        parts = [system("Sort the message."), *demonstrations.parts(ASKED), question(ASKED)]
        plan = job.plan(model, parts, sampling, window_tokens=160)
        print(plan)
        return (await job.ask(model, plan, sampling)).text

    outcome = Task("sort", work).run(paid_by=Limits(tokens=400))
    print("to label:", [example.input for example in pool])
    print("answer:", outcome.text)
    print(outcome.trace)
    return outcome


if __name__ == "__main__":
    main(LocalModel.load())
