"""Words: the helper's text is taken word by word; the two models need not have one tokenizer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ctxkit_agents.collaboration.combine import HELPER, Combine, Piece, Turn

_WORD = re.compile(r" *[^ ]+| +$")
_BLOCK_TOKENS = 16


@dataclass(frozen=True)
class Words(Combine):
    """The helper proposes `tokens` tokens; its words are taken until the writer can go on by itself.

    Nudging's first stage (arXiv 2410.09300). The first word is always taken; then one more after the other, until the
    writer would begin the next word as the helper does, or the router would not ask any more. If neither comes, all but
    the last word, which may be cut off, is taken. A proposal that ends the answer is taken whole.

    most: proposals in one answer, at most; then the answer ends, as at its length.
    """

    tokens: int = _BLOCK_TOKENS
    most: int = 150

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.most < 1:
            raise ValueError(f"`tokens` and `most` must be at least 1, got {self.tokens!r} and {self.most!r}")

    def most_written(self, max_tokens: int) -> tuple[int, int]:
        return _BLOCK_TOKENS, self.tokens * min(self.most, max_tokens)

    def write(self, turn: Turn) -> list[Piece]:
        writer, helper = turn.sides.writer, turn.sides.helper
        text, had = writer.output, len(writer.output_ids)
        helper.sync(text)
        proposal, ends = helper.propose(self.tokens)
        words = _WORD.findall(proposal)
        if ends or not words:
            taken, why = proposal, "finishes" if ends else "has nothing to say"
        else:
            taken, why = self._taken(turn, text, words)
        writer.sync(text + taken)
        return [Piece(HELPER, taken, max(0, len(writer.output_ids) - had), why, ends or not words)]

    def _taken(self, turn: Turn, text: str, words: list[str]) -> tuple[str, str]:
        writer, taken = turn.sides.writer, words[0]
        for word in words[1:]:
            writer.sync(text + taken)
            look = writer.look(max(turn.router.looks, 1))
            if begins(word, look.text):
                return taken, f"until both say {look.text!r}"
            if not turn.router.consults(look.top):
                return taken, f"until {writer.name} is sure of {look.text!r}"
            taken += word
        return "".join(words[:-1]) or words[0], "all but its last word"


@dataclass(frozen=True)
class FromHereOn(Combine):
    """The helper writes all the rest: a cascade that defers in the middle of an answer."""

    tokens = _BLOCK_TOKENS  # between two looks at what ends an answer
    lasting = True

    def most_written(self, max_tokens: int) -> tuple[int, int]:
        return _BLOCK_TOKENS, max_tokens + _BLOCK_TOKENS

    def write(self, turn: Turn) -> list[Piece]:
        writer, helper = turn.sides.writer, turn.sides.helper
        text, had = writer.output, len(writer.output_ids)
        helper.sync(text)
        more, ends = helper.propose(min(_BLOCK_TOKENS, turn.room))
        writer.sync(text + more)
        return [Piece(HELPER, more, len(writer.output_ids) - had, "from here on", ends)]


def begins(word: str, token: str) -> bool:
    """Whether a token is the beginning of a word, with or without the space before it.

    >>> begins(" therefore", " there"), begins(" therefore", "the"), begins(" therefore", " they")
    (True, True, False)
    """
    bare = word.lstrip(" ")
    return bool(token) and any(one.startswith(token) for one in (word, bare, " " + bare))
