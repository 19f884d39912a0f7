"""CoWritten: an answer that several models wrote, with who wrote what and what it cost each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ctxkit_agents.collaboration.loop import Loop
from ctxkit_agents.collaboration.routers import Seen
from ctxkit_agents.collaboration.script import Part, Step, table


@dataclass(frozen=True)
class CoWritten:
    """text: the answer. steps: who wrote which stretch of it, in order; their texts are the answer.

    finish_reason: "stop" (an end token, or a stop string), "length" or "repetition". writer, helper, others: what each
    model did. seen: what a router that looks at more than one probability saw, token by token, for `Learned.fit`.
    short_of: the allowance that ran out before the answer was done, where one did.
    """

    text: str
    steps: tuple[Step, ...]
    finish_reason: str
    writer: Part
    helper: Part
    others: tuple[Part, ...] = ()
    seen: tuple[Seen, ...] = ()
    short_of: str = ""

    @property
    def parts(self) -> tuple[Part, ...]:
        return (self.writer, self.helper, *self.others)

    @property
    def helper_share(self) -> float:
        """Of the answer's tokens, those that the helper wrote; 0 for an empty answer."""
        whole = self.writer.answer_tokens + self.helper.answer_tokens
        return self.helper.answer_tokens / whole if whole else 0.0

    def table(self) -> str:
        """One line per step: who, the writer's probability, the text, and why."""
        return table(self.steps)

    def to_dict(self) -> Mapping[str, Any]:
        return asdict(self)


def answer_of(loop: Loop, models: tuple[str, ...]) -> CoWritten:
    """What a loop that has ended came to. models: names of the sides' models."""
    steps = loop.script.steps()
    by_author = [sum(step.tokens for step in steps if step.author == name) for name in loop.names]
    tokens = [*by_author, *[0] * (len(models) - 2)]
    meters = [side.meter for side in loop.sides]
    writer, helper, *others = (
        Part(name, count, meter.tokens_in, meter.tokens_out, meter.reread, meter.passes)
        for name, count, meter in zip(models, tokens, meters, strict=True)
    )
    return CoWritten(
        loop.script.text,
        steps,
        loop.finish_reason,
        writer,
        helper,
        tuple(others),
        tuple(loop.seen),
        loop.short_of,
    )


def answer_from_json(value: Mapping[str, Any]) -> CoWritten:
    """From `to_dict`, also after it was JSON."""
    return CoWritten(
        **{
            **value,
            "steps": tuple(Step(**step) for step in value["steps"]),
            "writer": Part(**value["writer"]),
            "helper": Part(**value["helper"]),
            "others": tuple(Part(**part) for part in value["others"]),
            "seen": tuple(Seen(tuple(seen["top"]), seen["differs"]) for seen in value["seen"]),
        }
    )
