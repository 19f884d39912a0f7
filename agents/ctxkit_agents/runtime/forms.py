"""Answers in a form: read, and asked for once more where they cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ctxkit.context import Part, Plan, question, turn
from ctxkit.context.part import SupportsPart
from ctxkit.protocols import Model, Reply, Sampling
from ctxkit_agents.errors import AnswerMalformed
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.reading import json_objects

T = TypeVar("T")
Asked = str | Iterable[Part | SupportsPart]
"""What a method is asked: a question, or parts of which one should be the question."""

_SHOWN_CHARS = 400  # of an answer that could not be read, when it is shown again


class Malformed(ValueError):
    """Why an answer cannot be read, in words that help the model to do better."""


def as_parts(asked: Asked) -> list[Part]:
    """The parts; a str is a question. Raises ValueError where there is nothing."""
    parts = [question(asked)] if isinstance(asked, str) else [one.as_part() for one in asked]
    if not any(part.content.strip() for part in parts):
        raise ValueError(f"there is nothing to ask, got {asked!r}")
    return parts


def object_with(text: str, *names: str) -> Mapping[str, Any]:
    """The last JSON object in the text that has these fields; also out of an array. Raises Malformed."""
    found = [one for one in json_objects(text) if all(name in one for name in names)]
    if not found:
        fields = " and ".join(f'"{name}"' for name in names)
        raise Malformed(f"there is no JSON object with {fields} in it")
    return found[-1]


def whole(reply: Reply, *, or_cut: bool = False) -> str:
    """The reply's text, stripped. Raises Malformed for an empty one, and for one that was cut off unless `or_cut`.

    Half an answer in some form may well read like another whole one.
    """
    if not reply.text.strip():
        raise Malformed("it was empty")
    if reply.finish_reason == "length" and not or_cut:
        raise Malformed(f"it was cut off after {reply.completion_tokens:,} tokens; say it in fewer")
    return reply.text.strip()


def reminder(answer: str, wrong: str) -> tuple[Part, Part]:
    """The answer that could not be used and what was wrong, for the end of a prompt."""
    return (
        turn("assistant", answer.strip()[:_SHOWN_CHARS] or "(nothing)", id="wrong-answer", pinned=True),
        turn("user", f"This cannot be used: {wrong}. Answer again, in the form asked for.", id="reminder", pinned=True),
    )


async def ask_in_form(
    job: Job,
    model: Model,
    plan: Callable[[Sequence[Part]], Plan],
    read: Callable[[str], T],
    sampling: Sampling,
    *,
    step: str,
    timeout_seconds: float | None = None,
    or_cut: bool = False,
) -> T:
    """What `read` makes of the model's answer. Where it raises Malformed, the model is told why and asked once more.

    plan: makes the prompt, with what it is given at its end. or_cut: an answer that its length ended is taken, as plain
    text may be, and the job says so. Raises AnswerMalformed after the second answer.
    """
    reminded: Sequence[Part] = ()
    for attempt in (step, f"{step}-again"):
        reply = await job.ask(model, plan(reminded), sampling, step=attempt, timeout_seconds=timeout_seconds)
        try:
            answer = read(whole(reply, or_cut=or_cut))
            if reply.finish_reason == "length":
                job.degraded(f"the answer to {step!r} was cut off after {reply.completion_tokens:,} tokens")
            return answer
        except Malformed as error:
            wrong = str(error)
        reminded = reminder(reply.text, wrong)
    raise AnswerMalformed(
        f"{model.name!r} did not answer {step!r} of {job.path} in the form asked for, twice: {wrong}", answer=reply.text
    )
