"""Tokens: text to ids and back by one tokenizer, with the place of each id in the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

INCOMPLETE = "\ufffd"
INSIDE = -1
"""End of a token that stops inside a character: its other bytes are in the next token."""

_CONTEXT_TOKENS = 16


@dataclass(frozen=True)
class Encoded:
    """A text in tokens. ends: for each id the character behind it, or `INSIDE`."""

    ids: list[int]
    ends: list[int]


class Tokens:
    """A tokenizer, as two models that exchange text need it. What spells a control token is ordinary text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def encode(self, text: str) -> Encoded:
        spelled = any(token in text for token in self._control)
        found = (self._plain if spelled else self.tokenizer).encode(text, add_special_tokens=False)
        after = [start for start, _ in [*found.offsets, (len(text), 0)]][1:]
        ends = [end if end <= next_start else INSIDE for (_, end), next_start in zip(found.offsets, after, strict=True)]
        return Encoded(list(found.ids), ends)

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def count(self, text: str) -> int:
        return len(self.encode(text).ids)

    def piece(self, before: Sequence[int], token: int) -> tuple[str, bool]:
        """The text that a token completes after others, and whether a character is incomplete behind it."""
        context = list(before[-_CONTEXT_TOKENS:])
        known, now = self.decode(context).rstrip(INCOMPLETE), self.decode([*context, token])
        whole = now.rstrip(INCOMPLETE)
        return whole[len(known) :], len(whole) < len(now)

    def beginning(self) -> list[int]:
        """What the tokenizer puts before a text, such as a token of beginning."""
        bare, dressed = (self.tokenizer.encode("x", add_special_tokens=add).ids for add in (False, True))
        return dressed[: next((n for n in range(len(dressed)) if dressed[n : n + len(bare)] == bare), 0)]

    def same_as(self, other: Tokens) -> bool:
        """Whether an id means the same to both."""
        return self.tokenizer is other.tokenizer or self.tokenizer.get_vocab() == other.tokenizer.get_vocab()

    @cached_property
    def _control(self) -> tuple[str, ...]:
        added = self.tokenizer.get_added_tokens_decoder().values()
        return tuple(token.content for token in added if token.special)

    @cached_property
    def _plain(self) -> Tokenizer:
        from tokenizers import Tokenizer

        plain = Tokenizer.from_str(self.tokenizer.to_str())
        plain.encode_special_tokens = True
        return plain
