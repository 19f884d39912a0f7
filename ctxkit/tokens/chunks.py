"""ChunkEncoder: a rendered prompt tokenised message by message, each message once.

A tokenizer splits a text at its special tokens before it does anything else, so what stands between two of them has the
same ids wherever it stands. `fit` renders much the same prompt several times; only the messages that are new to it are
tokenised.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ctxkit.tokens.cache import TextCache

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

_MAX_CHARS = 16_000_000  # of the chunks remembered

Encoded = tuple[list[int], list[int]]
"""Ids, and the first character of each in its text."""


class ChunkEncoder:
    """Encodes texts with special tokens in them, remembering what stands between two; least recently used first out."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._encoded = TextCache(self._encode_all, _MAX_CHARS)
        added = tokenizer.get_added_tokens_decoder().values()
        names = sorted((token.content for token in added if _separates(token)), key=lambda name: (-len(name), name))
        self._start = re.compile("|".join(map(re.escape, names))) if names else None

    def encode(self, text: str) -> Encoded:
        chunks = list(self._split(text))
        ids: list[int] = []
        starts: list[int] = []
        at = 0
        for chunk, (chunk_ids, chunk_starts) in zip(chunks, self._encoded(chunks), strict=True):
            ids += chunk_ids
            starts += [at + start for start in chunk_starts]
            at += len(chunk)
        return ids, starts

    def _encode_all(self, chunks: Sequence[str]) -> list[Encoded]:
        encodings = self._tokenizer.encode_batch(list(chunks), add_special_tokens=False)
        return [(encoding.ids, [start for start, _ in encoding.offsets]) for encoding in encodings]

    def _split(self, text: str) -> Iterator[str]:
        """The text before the first special token, then each special token with what follows it."""
        if self._start is None:
            yield text
            return
        at = 0
        for match in self._start.finditer(text):
            if match.start() > at:
                yield text[at : match.start()]
            at = match.start()
        yield text[at:]


def _separates(token: AddedToken) -> bool:
    """Whether the token is found wherever it is spelled and takes nothing of its neighbours."""
    return token.special and not (token.lstrip or token.rstrip or token.single_word or token.normalized)
