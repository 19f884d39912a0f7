"""What a debating agent is told. The same parts for text and for beliefs: only what is quoted differs."""

from __future__ import annotations

from collections.abc import Mapping

from ctxkit.context import Part

INSTRUCTION = "Think step by step. Write the answer alone on the last line."

_AGAIN = "Compare these answers, correct what is wrong in yours, and answer the question again."
_OWN_PRIORITY = 16.0  # what others said is shortened before one's own answer


def debate_parts(question: str, said: Mapping[int, str], agent: int, instruction: str = INSTRUCTION) -> list[Part]:
    """The prompt of agent `agent` as parts, which are one user message.

    said: what each agent said last, by its number; empty in the first round. One's own answer comes first.
    """
    asked = Part("question", question, id="question", pinned=True)
    if not said:
        return [asked, Part("question", instruction, id="request", pinned=True)]
    order = sorted(said, key=lambda number: (number != agent, number))
    quoted = [_quoted(number, said[number], own=number == agent) for number in order]
    return [asked, *quoted, Part("question", f"{_AGAIN} {instruction}", id="request", pinned=True)]


def part_id(agent: int) -> str:
    """Of the part that quotes this agent."""
    return f"agent-{agent}"


def _quoted(number: int, text: str, *, own: bool) -> Part:
    title = "Your answer before" if own else f"The answer of agent {number}"
    return Part("passage", text, id=part_id(number), title=title, priority=_OWN_PRIORITY if own else 1.0)
