"""What a reasoning model thinks before it answers, apart from the answer."""

from __future__ import annotations

OPENING, CLOSING = "<think>", "</think>"


def opens_thinking(prompt_end: str) -> bool:
    """Whether a prompt ends within the model's thinking, as some templates have it."""
    return prompt_end.rstrip().endswith(OPENING)


class ThinkReader:
    """Takes the thinking at the beginning of a text that comes in pieces; the rest is the answer.

    thinking: the prompt has opened it already; else the answer's first word decides.

    >>> reader = ThinkReader()
    >>> reader.feed("<think>Hm"), reader.feed(", 2.</think>Two")
    ('', 'Two')
    >>> reader.reasoning
    'Hm, 2.'
    """

    def __init__(self, *, thinking: bool = False) -> None:
        self.reasoning = ""
        self._held = ""
        self._thinking: bool | None = True if thinking else None  # None: not known yet

    def feed(self, text: str) -> str:
        """The text of the answer in it."""
        if self._thinking is False:
            return text
        self._held += text
        if self._thinking is None:
            begin = self._held.lstrip()
            if len(begin) < len(OPENING) and OPENING.startswith(begin):
                return ""
            self._thinking = begin.startswith(OPENING)
            self._held = begin.removeprefix(OPENING) if self._thinking else self._held
        if not self._thinking:
            return self.flush()
        thought, closed, answer = self._held.partition(CLOSING)
        if not closed:
            return ""
        self.reasoning, self._held, self._thinking = thought, "", False
        return answer

    def flush(self) -> str:
        """What was held back, once no more text comes. Thinking that has no end is all that there is."""
        held, self._held = self._held, ""
        if not self._thinking:
            return held
        self.reasoning = held
        return ""
