"""How a question about passages is put to a model.

Written for small models, and harmless to large ones: one short rule, two short examples of an answer, no format to
follow, no citation to make up (those come from the evidence). What was tried instead is in `benchmarks/LOG.md`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ctxkit.context import Part, turn
from ctxkit.protocols import Sampling

SYSTEM = "Answer the question from the passages. If they do not say, answer that they do not say."

SAMPLING = Sampling(stop=("\nQuestion:", "\n\n["), frequency_penalty=0.2)
"""Greedy. It stops where a small model has answered and begins to make up the next question or passage, and the light
penalty keeps it from repeating one sentence until the reserve is spent."""

_EXAMPLES = (
    (
        "[1] Opening hours\nThe garden opens at nine. The gate closes at five. To enter later, ring the bell at the "
        "small door.\n\nQuestion: How do I enter after five?",
        "Ring the bell at the small door.",
    ),
    (
        "[1] Tickets\nTickets cost 12 euros. Children under six enter free.\n\nQuestion: What does a ticket cost?",
        "A ticket costs 12 euros.",
    ),
)


def examples() -> list[Part]:
    """Two answered questions, as one group of turns: they show that an answer is short and taken from a passage."""
    return [
        turn(role, text, id=f"example-{number}-{role}", group="examples")
        for number, example in enumerate(_EXAMPLES, start=1)
        for role, text in zip(("user", "assistant"), example, strict=True)
    ]


def ask(question: str) -> str:
    """The question, as it follows the passages."""
    return f"Question: {question}"


def best_last(passages: Sequence[Part]) -> list[Part]:
    """Passages, best first, in the order in which they are sent: the best one next to the question.

    A small model reads what is near: `benchmarks/answer_quality.py` compares both orders.
    """
    return list(reversed(passages))
