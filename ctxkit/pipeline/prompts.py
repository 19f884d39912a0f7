"""How a question about passages is put to a model."""

from __future__ import annotations

from collections.abc import Sequence

from ctxkit.context import Part

# Written for small models: one short rule, no format to follow, no citation to make up (those come from the evidence).
SYSTEM = "Answer the question from the passages. If they do not say, answer that they do not say."


def ask(question: str) -> str:
    """The question, as it follows the passages."""
    return f"Question: {question}"


def best_last(passages: Sequence[Part]) -> list[Part]:
    """Passages, best first, in the order in which they are sent: the best one next to the question.

    A small model reads what is near: `benchmarks/answer_quality.py` compares both orders.
    """
    return list(reversed(passages))
