"""A lower bound on what a prompt costs, to notice that a server has cut it.

Assumed of the server's tokenizer: it cuts a text before it merges, at least where every family of `bpe_bound` cuts
(between words, between a letter and what is none, ...), and no token reaches over such a cut; then a text has at least
as many tokens as pieces, whatever the vocabulary. That holds for the byte-level BPE tokenizers of today and, for text
in words, for SentencePiece; not for tokenizers with tokens of several words (SuperBPE). Assumed of its template: it
sends the text of every message. Left out of the count, because templates may: tools, tool calls, blocks that are not
text, `<think>` in earlier answers. What looks like a control token (`<|im_end|>`, `<b>`, `[INST]`) counts as nothing,
because a server may read it as one.

For prose and code the bound is half to four fifths of the real count, for Chinese or Japanese a tenth.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter as Multiset
from collections.abc import Iterable
from functools import lru_cache

from ctxkit.protocols import PromptMessage
from ctxkit.tokens.bpe_bound import FAMILIES, Costs, chunks, pieces_of

_MARKER = re.compile(r"<[^<>\s]{1,48}>|\[/?[A-Z_]{2,24}\]")
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)


def at_least(messages: Iterable[PromptMessage]) -> int:
    """Tokens of the messages, at least, in any of the families. See the module for what is assumed."""
    return sum(least_tokens(_certain_text(message)) for message in messages)


def least_tokens(text: str) -> int:
    """Tokens of `text`, at least: its pieces in the family that cuts it least, in any normal form.

    >>> least_tokens("The quick brown fox")
    4
    """
    text = _MARKER.sub("", text)
    forms = {text} if text.isascii() else {text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFKC"))}
    return min(map(_fewest_pieces, forms))


def _certain_text(message: PromptMessage) -> str:
    return _THOUGHT.sub("", message.content) if message.role == "assistant" else message.content


def _fewest_pieces(text: str) -> int:
    found = Multiset(chunks(text))
    totals = [0] * len(FAMILIES)
    for (chunk, sure), n in found.items():
        for i, pieces in enumerate(_pieces(chunk) if sure else (1,) * len(FAMILIES)):
            totals[i] += n * pieces
    return min(totals)


@lru_cache(maxsize=1 << 16)
def _pieces(chunk: str) -> Costs:
    return tuple(len(pieces_of(family, chunk)) for family in FAMILIES)
