"""ChunkEncoder: a rendered prompt tokenised message by message, each message once.

A tokenizer splits a text at its special tokens before it does anything else, so what stands between two of them has the
same ids wherever it stands. `fit` renders much the same prompt several times; only the messages that are new to it are
tokenised.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

_MAX_CHARS = 16_000_000  # of the chunks remembered

Encoded = tuple[list[int], list[int]]
"""Ids, and the first character of each in its text."""


class ChunkEncoder:
    """Encodes texts with special tokens in them, remembering what stands between two; least recently used first out."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._chunks: OrderedDict[str, Encoded] = OrderedDict()
        self._chars = 0
        self._lock = Lock()
        added = tokenizer.get_added_tokens_decoder().values()
        names = sorted((token.content for token in added if _separates(token)), key=lambda name: (-len(name), name))
        self._start = re.compile("|".join(map(re.escape, names))) if names else None

    def encode(self, text: str) -> Encoded:
        chunks = list(self._split(text))
        with self._lock:
            known = {chunk: self._chunks[chunk] for chunk in chunks if chunk in self._chunks}
        new = [chunk for chunk in dict.fromkeys(chunks) if chunk not in known]
        encodings = self._tokenizer.encode_batch(new, add_special_tokens=False) if new else []
        for chunk, encoding in zip(new, encodings, strict=True):
            known[chunk] = (encoding.ids, [start for start, _ in encoding.offsets])
        self._remember(known)
        ids: list[int] = []
        starts: list[int] = []
        at = 0
        for chunk in chunks:
            chunk_ids, chunk_starts = known[chunk]
            ids += chunk_ids
            starts += [at + start for start in chunk_starts]
            at += len(chunk)
        return ids, starts

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

    def _remember(self, chunks: dict[str, Encoded]) -> None:
        with self._lock:
            for chunk, encoded in chunks.items():
                if chunk not in self._chunks:
                    self._chars += len(chunk)
                self._chunks[chunk] = encoded
                self._chunks.move_to_end(chunk)
            while self._chars > _MAX_CHARS and self._chunks:
                chunk, _ = self._chunks.popitem(last=False)
                self._chars -= len(chunk)


def _separates(token: AddedToken) -> bool:
    """Whether the token is found wherever it is spelled and takes nothing of its neighbours."""
    return token.special and not (token.lstrip or token.rstrip or token.single_word or token.normalized)
