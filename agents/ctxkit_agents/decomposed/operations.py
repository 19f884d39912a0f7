"""What a step asks, sub-question by sub-question, and what its answers come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ctxkit_agents.decomposed.grammar import Step, as_json, with_references
from ctxkit_agents.errors import ToolError
from ctxkit_agents.runtime.forms import Malformed

_YES = frozenset({"yes", "true", "1"})
_NO = frozenset({"no", "false", "0"})


@dataclass(frozen=True)
class Asked:
    """questions: each once, no references left. combine: their answers, in this order, to the step's answer."""

    questions: tuple[str, ...]
    combine: Callable[[Sequence[Any]], Any]


def resolved(step: Step, answers: Sequence[Any]) -> Asked:
    """What the step asks where `answers` are #1, #2, ... Raises Malformed: no such answer, or nothing to map over.

    Everything that is put into a question is JSON, but for the item that is mapped over: a text is put in as it is.
    """
    _check_references(step, len(answers))
    if step.operation == "select":
        whole = {number: as_json(answers[number - 1]) for number in step.references}
        return Asked((with_references(step.question, whole),), lambda found: found[0])
    over = _mapped(step)
    rows = _rows(step, over, answers[over - 1])
    others = {number: as_json(answers[number - 1]) for number in step.references if number != over}
    asked = [with_references(step.question, {**others, over: _bare(about)}) for _, about in rows]
    questions = tuple(dict.fromkeys(asked))  # equal items are asked about once
    place = {question: at for at, question in enumerate(questions)}
    return Asked(questions, lambda found: _combined(step, answers[over - 1], rows, [found[place[q]] for q in asked]))


def _check_references(step: Step, known: int) -> None:
    for number in (*step.references, *([step.over] if step.over else [])):
        if not 1 <= number <= known:
            have = f"the answers so far are #1 to #{known}" if known else "there is no answer yet"
            raise Malformed(f"#{number} does not exist: {have}")


def _mapped(step: Step) -> int:
    """The number of the answer that is mapped over."""
    if step.over is not None:
        if step.over not in step.references:
            raise Malformed(f"the sub-question must name #{step.over}, which it is asked for each item of")
        return step.over
    if len(step.references) != 1:
        named = f"{len(step.references)} answers" if step.references else "no answer"
        raise Malformed(
            f"{step.operation} maps over one answer and the sub-question names {named}; "
            f"say which, as in ({step.operation}(#1))"
        )
    return step.references[0]


def _rows(step: Step, over: int, value: Any) -> list[tuple[Any, Any]]:
    """(what stands for it in the answer, what is asked about) of each item."""
    if isinstance(value, dict):
        by_key = step.operation.endswith("_keys")
        return [(key, key if by_key else inner) for key, inner in value.items()]
    if not isinstance(value, list):
        raise Malformed(f"#{over} is no list: {step.operation} cannot map over {as_json(value)[:80]}")
    if step.operation.endswith("_keys"):
        raise Malformed(f"#{over} is a list and has no keys; use {step.operation.removesuffix('_keys')}")
    return [(item, item) for item in value]


def _combined(step: Step, value: Any, rows: Sequence[tuple[Any, Any]], found: Sequence[Any]) -> Any:
    if step.operation.startswith("filter"):
        kept = [key for (key, _), answer in zip(rows, found, strict=True) if _is_yes(answer)]
        return {key: value[key] for key in kept} if isinstance(value, dict) else kept
    if step.operation == "project":
        return {_bare(key): answer for (key, _), answer in zip(rows, found, strict=True)}
    listed = _flat(found) if step.flat else list(found)
    return _unique(listed) if step.unique else listed


def _flat(values: Sequence[Any]) -> list[Any]:
    return [inner for value in values for inner in (value if isinstance(value, list) else [value])]


def _unique(values: Sequence[Any]) -> list[Any]:
    return list({as_json(value): value for value in values}.values())


def _bare(value: Any) -> str:
    return value if isinstance(value, str) else as_json(value)


def _is_yes(answer: Any) -> bool:
    said = _bare(answer).strip().rstrip(".").lower()
    if said not in _YES | _NO:
        raise ToolError(f"a filter needs yes or no from its handler, which said {_bare(answer)[:80]!r}")
    return said in _YES
