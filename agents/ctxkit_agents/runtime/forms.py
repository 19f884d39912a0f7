"""Answers in a form: asked for, read, and asked for once more where they cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from ctxkit.context import Part, Plan, question, turn
from ctxkit.context.part import SupportsPart
from ctxkit.errors import BudgetInfeasible, BudgetOverdrawn
from ctxkit.protocols import Model, Sampling
from ctxkit_agents.errors import AnswerMalformed
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.reading import json_values

T = TypeVar("T")
Asked = str | Iterable[Part | SupportsPart]
"""What a method is asked: a question, or parts of which one should be the question."""


def as_parts(asked: Asked) -> list[Part]:
    """The parts; a str is a question. Raises ValueError where there is nothing."""
    parts = [question(asked)] if isinstance(asked, str) else [one.as_part() for one in asked]
    if not any(part.content.strip() for part in parts):
        raise ValueError(f"there is nothing to ask, got {asked!r}")
    return parts


async def ask_in_form(
    job: Job,
    model: Model,
    parts: Sequence[Part],
    read: Callable[[str], T],
    sampling: Sampling,
    *,
    form: str,
    step: str = "ask",
    plan: Plan | None = None,
    timeout_seconds: float | None = None,
) -> T:
    """What `read` makes of the answer. Where it raises AnswerMalformed the model is told why and asked once more.

    form: the sentence that says how to answer, repeated then. plan: of the parts, where it is made already.
    Raises AnswerMalformed where the second answer cannot be read either, or cannot be paid for, and what `Job.plan`
    and `Job.ask` raise at the first.
    """
    plan = plan or job.plan(model, parts, sampling)
    reply = await job.ask(model, plan, sampling, step=step, timeout_seconds=timeout_seconds)
    try:
        return read(reply.text)
    except AnswerMalformed as wrong:
        said = [turn("assistant", reply.text, id=f"{step}/said")] if reply.text.strip() else []
        again = [*parts, *said, question(f"That answer cannot be used: {wrong}. {form}", id=f"{step}/again")]
        try:
            plan = job.plan(model, again, sampling)
            reply = await job.ask(model, plan, sampling, step=f"{step}-again", timeout_seconds=timeout_seconds)
        except (BudgetInfeasible, BudgetOverdrawn) as refusal:
            raise AnswerMalformed(f"{wrong}, and it cannot be asked again", answer=wrong.answer) from refusal
        return read(reply.text)


def object_with(text: str, *names: str) -> Mapping[str, Any]:
    """The last JSON object in the text that has these fields; also out of an array. Raises AnswerMalformed."""
    found = [one for one in _objects(text) if all(name in one for name in names)]
    if not found:
        fields = " and ".join(f'"{name}"' for name in names)
        raise AnswerMalformed(f"there is no JSON object with {fields} in it", answer=text)
    return found[-1]


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    for value in json_values(text):
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                yield one
