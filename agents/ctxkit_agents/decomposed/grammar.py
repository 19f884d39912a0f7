"""The language of decompositions: how a step is written, read and shown.

    QC: a complex question
    QS: (operation) [handler] a sub-question, which may name earlier answers as #1, #2, ...
    A: the answer to it, as JSON
    QS: [EOQ]

The model writes the QS lines, one at a time; the A lines are ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ctxkit_agents.runtime.forms import Malformed

END = "[EOQ]"

OPERATIONS: Mapping[str, str] = {
    "select": "asks the sub-question once",
    "project": "asks it of each item of a list, or each value of an object; answers with an object from item or key",
    "project_values": "the same, but answers with the list of answers",
    "project_keys": "asks it of each key of an object; answers with the list of answers",
    "filter": "asks it of each item or value; keeps those that are answered with yes",
    "filter_keys": "asks it of each key of an object; keeps those that are answered with yes",
}
"""What a step can do. `_flat` and `_unique` behind project_values and project_keys open lists and drop repeats."""

_LINE = re.compile(r"QS: *(?:\((?P<operation>[^)]*(?:\(#\d+\))?)\) *)?\[(?P<handler>[^\]]*)\](?P<question>.*)")
_OPERATION = re.compile(r"(?P<name>[a-z]+(?:_keys|_values)?)(?P<after>(?:_flat|_unique)*)(?:\(#(?P<over>\d+)\))?")
_REFERENCE = re.compile(r"#(\d+)")
_SHOWN_CHARS = 80


@dataclass(frozen=True, slots=True)
class Step:
    """One QS line.

    operation: a key of OPERATIONS. handler: who answers. question: with its references.
    over: the answer that is mapped over, where the line says so: `(project(#2))`; None where the question's only
    reference says it. flat, unique: what is done to the list of answers.
    """

    operation: str
    handler: str
    question: str
    over: int | None = None
    flat: bool = False
    unique: bool = False

    @property
    def references(self) -> tuple[int, ...]:
        """The numbers of the answers that the question names, each once, in order."""
        return references(self.question)

    def __str__(self) -> str:
        after = ("_flat" if self.flat else "") + ("_unique" if self.unique else "")
        over = f"(#{self.over})" if self.over else ""
        return f"QS: ({self.operation}{after}{over}) [{self.handler}] {self.question}"


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A question and how it was decomposed. `str()` is the text that the model is shown."""

    question: str
    steps: tuple[tuple[Step, Any], ...]

    def __str__(self) -> str:
        return "\n".join([f"QC: {self.question}", *shown(self.steps), f"QS: {END}"])


def shown(steps: tuple[tuple[Step, Any], ...], most_chars: int | None = None) -> list[str]:
    """Steps and their answers as lines. An answer longer than `most_chars` is shown by its beginning."""
    return [line for step, answer in steps for line in (str(step), f"A: {_answer(answer, most_chars)}")]


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def references(text: str) -> tuple[int, ...]:
    """The numbers of the answers that a text names, each once, in order."""
    return tuple(dict.fromkeys(int(number) for number in _REFERENCE.findall(text)))


def with_references(text: str, values: Mapping[int, str]) -> str:
    """The text with each #k that has a value replaced; what is put in is not looked at again."""
    return _REFERENCE.sub(lambda found: values.get(int(found[1]), found[0]), text)


def parse_step(text: str) -> Step | None:
    """The step that a model wrote, None for the end. Raises Malformed, which names the line."""
    lines = [(at, line) for at, line in enumerate(text.splitlines(), 1) if line.strip()]
    for at, line in lines[1:]:
        raise Malformed(f"line {at}, {_short(line)!r}, is one too many: write one QS line, the next step only")
    return _step(lines[0][1] if lines else "", 1)


def step_regex(handlers: Iterable[str], most_chars: int) -> str:
    """Matches a step of these handlers, or the end, and nothing else; a sub-question has `most_chars` at most."""
    operations = "|".join(OPERATIONS)
    names = "|".join(handlers)
    return rf"QS: (\(({operations})\) \[({names})\] [^\n ][^\n]{{0,{most_chars - 1}}}|\[EOQ\])"


def parse_demonstration(text: str) -> Demonstration:
    """A whole decomposition, from QC to [EOQ]. Raises Malformed, which names the line."""
    lines = [(at, line.strip()) for at, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines or not lines[0][1].startswith("QC:"):
        raise Malformed("line 1 must begin with `QC:` and the question")
    *middle, (last, end) = lines[1:] or [(2, "")]
    if _step(end, last) is not None or len(middle) % 2 or not middle:
        raise Malformed(f"line {last}: after QC come QS and A in turn, at least once, and `QS: {END}` last")
    pairs = zip(middle[::2], middle[1::2], strict=True)
    steps = tuple((_inner_step(line, at), _read_answer(answer, below)) for (at, line), (below, answer) in pairs)
    return Demonstration(lines[0][1].removeprefix("QC:").strip(), steps)


def _step(line: str, at: int) -> Step | None:
    where = f"line {at}, {_short(line)!r}"
    found = _LINE.fullmatch(line.strip())
    if found is None:
        raise Malformed(f"{where}, is no step: write `QS: (operation) [handler] sub-question` or `QS: {END}`")
    handler, question = found["handler"].strip(), found["question"].strip()
    if handler == END.strip("[]"):
        if question or found["operation"]:
            raise Malformed(f"{where}: nothing stands beside {END}")
        return None
    if not handler or not question:
        raise Malformed(f"{where}, has no {'sub-question' if handler else 'handler'}")
    return Step(handler=handler, question=question, **_operation(found["operation"] or "select", where))


def _operation(text: str, where: str) -> dict[str, Any]:
    found = _OPERATION.fullmatch(text.strip())
    if found is None or found["name"] not in OPERATIONS:
        raise Malformed(f"{where}: {text!r} is no operation; there are {', '.join(OPERATIONS)}")
    name, after = found["name"], found["after"]
    if after and name not in ("project_values", "project_keys"):
        raise Malformed(f"{where}: `{after}` goes with project_values and project_keys only")
    if found["over"] and name == "select":
        raise Malformed(f"{where}: select maps over nothing, so it takes no (#{found['over']})")
    over = int(found["over"]) if found["over"] else None
    return {"operation": name, "over": over, "flat": "_flat" in after, "unique": "_unique" in after}


def _inner_step(line: str, at: int) -> Step:
    step = _step(line, at)
    if step is None:
        raise Malformed(f"line {at}: {END} stands at the end only")
    return step


def _read_answer(line: str, at: int) -> Any:
    if not line.startswith("A:"):
        raise Malformed(f"line {at}, {_short(line)!r}, must be the answer: `A:` and JSON")
    try:
        return json.loads(line.removeprefix("A:"))
    except json.JSONDecodeError as error:
        raise Malformed(f"line {at}, {_short(line)!r}: the answer is not JSON") from error


def _answer(value: Any, most_chars: int | None) -> str:
    text = as_json(value)
    if most_chars is None or len(text) <= most_chars:
        return text
    size = f"{len(value):,} items" if isinstance(value, list | dict) else f"{len(text):,} characters"
    return f"{text[:most_chars]}… ({size} in all)"


def _short(line: str) -> str:
    return line if len(line) <= _SHOWN_CHARS else line[: _SHOWN_CHARS - 1] + "…"
