"""How a question about passages is put to a model."""

from __future__ import annotations

# Written for small models: one short rule, no format to follow, no citation to make up (those come from the evidence).
SYSTEM = "Answer the question from the passages. If they do not say, answer that they do not say."


def ask(question: str) -> str:
    """The question, as it follows the passages."""
    return f"Question: {question}"
