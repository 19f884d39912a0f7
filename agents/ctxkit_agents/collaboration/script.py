"""Script: the answer as it is written, and who wrote what, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ctxkit_agents.collaboration.tokens import Tokens

_SHOWN_CHARS = 48
_LEAST_SUFFIX_CHARS = 30


@dataclass(frozen=True, slots=True)
class Step:
    """A stretch of the answer by one author.

    tokens: of the writer's tokenizer. probability: the writer's own for its likeliest token: where the helper was
    asked that was there, where the writer wrote the lowest of the stretch; None where nobody looked.
    """

    author: str
    text: str
    tokens: int
    probability: float | None
    why: str


class Script:
    """The steps so far; their texts are the answer. tokens: the writer's."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._steps: list[Step] = []
        self._text = ""

    @property
    def text(self) -> str:
        return self._text

    def add(self, step: Step) -> None:
        self._steps.append(step)
        self._text += step.text

    def go_on(self, author: str, text: str, probability: float | None) -> None:
        """The writer's next token: one more of its stretch."""
        last = self._steps[-1] if self._steps else None
        if last is None or last.author != author or last.why:
            self.add(Step(author, text, 1, probability, ""))
            return
        known = [one for one in (last.probability, probability) if one is not None]
        self._steps[-1] = replace(
            last, text=last.text + text, tokens=last.tokens + 1, probability=min(known, default=None)
        )
        self._text += text

    def cut(self, characters: int) -> None:
        """Takes back all but the first `characters` characters."""
        while self._steps and len(self._text) > characters:
            last = self._steps.pop()
            before = len(self._text) - len(last.text)
            left = last.text[: max(0, characters - before)]
            if left:
                self._steps.append(replace(last, text=left, tokens=self._tokens.count(left)))
            self._text = self._text[:before] + left

    def steps(self) -> tuple[Step, ...]:
        return tuple(step for step in self._steps if step.text or step.tokens)


def without_repeated_end(text: str) -> str:
    """The text, with an end of 30 or more characters that stands there twice in a row standing there once."""
    while True:
        longest = range(len(text) // 2, _LEAST_SUFFIX_CHARS - 1, -1)
        found = next((n for n in longest if text[-n:] == text[-2 * n : -n]), 0)
        if not found:
            return text
        text = text[:-found]


@dataclass(frozen=True, slots=True)
class Part:
    """What one model did. answer_tokens: of the answer it wrote so many, in the writer's tokens.

    tokens_in: read that others wrote, or again. tokens_out: written, also what was not taken. reread: of tokens_in,
    those of text that it had read before. passes: times that it ran.
    """

    model: str
    answer_tokens: int
    tokens_in: int
    tokens_out: int
    reread: int
    passes: int


def table(steps: tuple[Step, ...]) -> str:
    """One line per step: author, the writer's probability, text, reason."""
    rows = [("author", "p", "text", "why"), *_rows(steps)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _rows(steps: tuple[Step, ...]) -> Iterator[tuple[str, str, str, str]]:
    for step in steps:
        shown = repr(step.text)
        shown = shown if len(shown) <= _SHOWN_CHARS else f"{shown[: _SHOWN_CHARS - 2]}…{shown[-1]}"
        yield step.author, "" if step.probability is None else f"{step.probability:.2f}", shown, step.why
