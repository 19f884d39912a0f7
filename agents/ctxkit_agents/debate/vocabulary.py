"""Which token has which number: two models can exchange beliefs only where they agree on it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctxkit_agents.errors import TokenizerMismatch

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_DIGEST_CHARS = 16


@dataclass(frozen=True)
class Vocabulary:
    """The numbering of a tokenizer's tokens.

    fingerprint: 16 hexadecimal digits, equal where every token has the same number. size: the highest number and one.
    Merges and normalisation may differ: a belief names tokens, it is never tokenised.
    """

    fingerprint: str
    size: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Vocabulary:
        known = tokenizer.get_vocab(with_added_tokens=True)
        digest = hashlib.sha256(json.dumps(sorted(known.items())).encode()).hexdigest()
        return cls(digest[:_DIGEST_CHARS], max(known.values(), default=-1) + 1)


def check_same(name: str, tokenizer: Tokenizer, other_name: str, other: Tokenizer) -> None:
    """Raises TokenizerMismatch where a token has not the same number in both; it says how many, and names one."""
    mine, theirs = tokenizer.get_vocab(with_added_tokens=True), other.get_vocab(with_added_tokens=True)
    if mine == theirs:
        return
    differing = sorted(token for token in mine.keys() | theirs.keys() if mine.get(token) != theirs.get(token))
    first = differing[0]
    raise TokenizerMismatch(
        f"{name!r} and {other_name!r} number {len(differing):,} of their tokens differently ({first!r} is "
        f"{_number(mine.get(first))} and {_number(theirs.get(first))}), so they cannot exchange beliefs. Take "
        "models of one tokenizer, or let them debate in text."
    )


def _number(number: int | None) -> str:
    return "unknown" if number is None else str(number)
