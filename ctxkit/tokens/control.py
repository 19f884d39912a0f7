"""Control tokens: the strings that open roles and end turns, and how to keep a content from writing one.

A content that spells `<|im_start|>` is bracketed by two private-use characters before the template sees it. In the
rendered text, a control token without brackets is the template's own; a bracketed one is tokenised as ordinary text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctxkit.tokens.jinja import literal_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_PRIVATE_USE = range(0xE000, 0xF8FF)


@dataclass(frozen=True, slots=True)
class Brackets:
    """Two characters that no content of this prompt holds."""

    open: str
    close: str

    @classmethod
    def absent_from(cls, texts: Sequence[str]) -> Brackets:
        used = {character for text in texts for character in set(text) if ord(character) in _PRIVATE_USE}
        free = (chr(code) for code in _PRIVATE_USE if chr(code) not in used)
        return cls(next(free), next(free))

    def strip(self, text: str) -> str:
        return text.replace(self.open, "").replace(self.close, "")


class ControlTokens:
    """The control tokens of one tokenizer and chat template.

    Special tokens always count. Other added tokens count where the template itself writes them (a role marker need
    not be "special"), except in assistant messages, where a marker such as `</think>` may be meant.
    """

    def __init__(self, tokenizer: Tokenizer, chat_template: str) -> None:
        literal = literal_text(chat_template)
        added = tokenizer.get_added_tokens_decoder().values()
        special = {token.content for token in added if token.special}
        self._all = _longest_first(special | {token.content for token in added if token.content in literal})
        self._spelled_anywhere = _any_of(self._all)
        self._spelled_by_assistant = _any_of(_longest_first(special))

    def spelled_in(self, texts: Iterable[str]) -> bool:
        pattern = self._spelled_anywhere
        return pattern is not None and any(pattern.search(text) for text in texts)

    def starts_in(self, text: str) -> list[int]:
        """Where each control token begins in a text."""
        return [] if self._spelled_anywhere is None else [at.start() for at in self._spelled_anywhere.finditer(text)]

    def bracket(self, value: Any, brackets: Brackets, role: str) -> Any:
        """`value` (a message, a tool, or anything inside one) with the control tokens in its strings bracketed."""
        if isinstance(value, str):
            pattern = self._spelled_by_assistant if role == "assistant" else self._spelled_anywhere
            replacement = f"{brackets.open}\\g<0>{brackets.close}"
            return pattern.sub(replacement, value) if pattern else value
        if isinstance(value, Mapping):
            return {key: item if key == "role" else self.bracket(item, brackets, role) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.bracket(item, brackets, role) for item in value]
        return value

    def runs(self, rendered: str, brackets: Brackets) -> Iterator[tuple[bool, str]]:
        """(is the template's own control token, text without brackets), in order; joined they are the clean text."""
        controls = "|".join(map(re.escape, self._all))
        token = re.compile(f"{brackets.open}.*?{brackets.close}|(?P<control>{controls})", re.DOTALL)
        at = 0
        for match in token.finditer(rendered):
            if match["control"] is not None:
                yield False, brackets.strip(rendered[at : match.start()])
                yield True, match.group()
                at = match.end()
        yield False, brackets.strip(rendered[at:])


def strings_in(value: Any) -> Iterator[str]:
    """Every string inside a JSON-like value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from strings_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings_in(item)


def _longest_first(tokens: Iterable[str]) -> list[str]:
    return sorted(tokens, key=lambda token: (-len(token), token))


def _any_of(tokens: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(re.escape, tokens))) if tokens else None
