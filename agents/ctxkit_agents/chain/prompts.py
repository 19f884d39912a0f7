"""What the agents of a chain are asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ctxkit.context import Part, instruction, memory
from ctxkit.context import question as question_part
from ctxkit.models.requests import as_request, count_prompt
from ctxkit.protocols import ChatMessage, Counter

QUOTE_MARK = "EVIDENCE:"
ANSWERED_MARK = "ANSWERED:"

_WORDS_PER_TOKEN = 0.7
_NOTHING_YET = "(none yet)"

_READ = (
    "A text is too long to be read at once. You read one piece of it; others read the rest. Write new notes that merge "
    "the notes so far with what this piece adds. {what} Whoever answers sees your notes only. At most {words} words."
)
_ABOUT = "Keep all facts that help to answer the question: who, what, when, how many."
_ABOUT_ALL = "Keep what a summary of the whole text must say, in its order, in detail."
_MERGE = (
    "Several people each read one piece of a long text and took notes. Merge their notes, in order, into one. {what} "
    "Write the merged notes only, at most {words} words."
)
_QUOTE = (
    f"\nAfter the notes copy the sentences of this piece that matter most, word for word, one on each line, as\n"
    f'{QUOTE_MARK} "the sentence"'
)
_SAY_WHETHER = (
    f"\nEnd with the line {ANSWERED_MARK} yes where your notes answer the question already, else {ANSWERED_MARK} no."
)
_ANSWER = (
    "Answer the question by the notes, which were taken from a text too long to show, and by the quotes from that "
    "text where there are some. Give the answer only."
)
_SUMMARISE = "Write a summary of a text too long to show, from the notes that were taken from it."
_DECIDE = "Several people answered the question. Choose the best answer by the quotes from the text, and give it only."


@dataclass(frozen=True)
class WorkerPrompts:
    """The prompts of one chain's workers, and the most that a worker may answer.

    question: "" to summarise. unit_tokens: of the notes. quote_tokens: of the quotes; 0 asks for none.
    early_exit: also asks whether the question is answered.
    """

    question: str
    unit_tokens: int
    quote_tokens: int
    early_exit: bool = False

    @property
    def answer_tokens(self) -> int:
        return self.unit_tokens + self.quote_tokens

    def reading(self, chunk: str, unit: str) -> list[ChatMessage]:
        """Of a worker that reads `chunk` and was handed `unit`."""
        rules = _READ.format(what=self._what, words=self._words)
        rules += _QUOTE if self.quote_tokens else ""
        rules += _SAY_WHETHER if self.early_exit else ""
        told = f"Notes so far:\n{unit or _NOTHING_YET}\n\nThis piece:\n{chunk}\n\n{self._asked}New notes:"
        return _messages(rules, told)

    def merging(self, units: Sequence[str]) -> list[ChatMessage]:
        rules = _MERGE.format(what=self._what, words=self._words)
        notes = "\n\n".join(f"Notes {number}:\n{unit}" for number, unit in enumerate(units, 1))
        return _messages(rules, f"{notes}\n\n{self._asked}Merged notes:")

    def with_units_of(self, unit_tokens: int) -> WorkerPrompts:
        """With smaller units, and quotes that are smaller in proportion."""
        return replace(
            self, unit_tokens=unit_tokens, quote_tokens=-(-self.quote_tokens * unit_tokens // self.unit_tokens)
        )

    @property
    def _what(self) -> str:
        return _ABOUT if self.question else _ABOUT_ALL

    @property
    def _words(self) -> int:
        return max(1, int(self.unit_tokens * _WORDS_PER_TOKEN))

    @property
    def _asked(self) -> str:
        return f"Question: {self.question}\n\n" if self.question else ""


def manager_parts(question: str, unit: str, evidence: Sequence[Part], *, decide: bool = False) -> list[Part]:
    """What the manager answers from. decide: the unit holds the answers of several chains."""
    task = _DECIDE if decide else _ANSWER if question else _SUMMARISE
    notes = f"{'Answers' if decide else 'Notes'}:\n{unit}"
    told = [memory(notes, id="unit", required=True)] if unit else []
    asked = question or "Write the summary."
    return [instruction(task, id="task"), *told, *evidence, question_part(asked, id="question")]


def tokens_of(messages: Sequence[ChatMessage], counter: Counter) -> int:
    """Of the whole prompt, as the model is sent it."""
    return count_prompt(as_request(messages), counter)


def _messages(rules: str, told: str) -> list[ChatMessage]:
    return [{"role": "system", "content": rules}, {"role": "user", "content": told}]
