"""Rubrics: what a judge looks at, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Rubric:
    """What a judge is told to look at before it judges.

    name: in steps and results. instruction: what to do. labels: name -> meaning, to be given to each turn of the
    conversation or to each answer, as `about` says; none where nothing is labelled.
    """

    name: str
    instruction: str
    labels: Mapping[str, str] = field(default_factory=dict)
    about: Literal["turn", "answer"] = "answer"

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or not self.instruction.strip():
            raise ValueError(f'a rubric needs an instruction and a name without "/", got {self.name!r}')

    @property
    def text(self) -> str:
        """As it stands in the prompt."""
        if not self.labels:
            return self.instruction
        meanings = "\n".join(f"- {name}: {meaning}" for name, meaning in self.labels.items())
        return f"{self.instruction}\nLabels:\n{meanings}"


PREFERENCE = Rubric(
    "preference",
    "Judge which answer the person who asked would find more helpful: right, complete, clear, honest and safe.",
)

DIALOGUE_ACTS = Rubric(
    "dialogue-acts",
    "First find out what each turn of the person does in the conversation. Then judge how well an answer does what the "
    "latest turn calls for, given how the intent has moved from turn to turn.",
    {
        "question": "asks for information",
        "request": "wants something done or written",
        "inform": "gives information",
        "confirm": "agrees with what was said",
        "correct": "says that something was wrong, or changes an earlier request",
        "clarify": "asks or tells what was meant",
        "follow-up": "goes on from the answer before",
        "new-topic": "leaves what was talked about",
        "thank": "thanks, greets or takes leave",
        "complain": "is not content",
    },
    "turn",
)
"""What the turns of a conversation do (dialogue acts), as in Amulet."""

MAXIMS = Rubric(
    "maxims",
    "First say which maxims of good conversation each answer violates. Then judge by that: the answer that violates "
    "fewer, and less gravely, is better.",
    {
        "quantity": "says less than is needed, or more",
        "quality": "says what is wrong, or what nobody could know",
        "relevance": "does not speak to what was asked",
        "manner": "is unclear, ambiguous, disordered or long-winded",
        "benevolence": "could do harm, or is rude",
        "transparency": "hides what it does not know or cannot do",
    },
)
"""Grice's maxims of conversation, and two for assistants, per answer, as in Amulet."""
