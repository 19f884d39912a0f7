"""Texts cut to what a transformer reads at once, with the tokens of each piece that become rows."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_OVERLAP = 0.25
_WORD_MARKS = "Ġ▁ "  # how byte-level BPE and sentencepiece write the space before a word


@dataclass(frozen=True, slots=True)
class Piece:
    """What goes through the transformer at once.

    text: number of the text it is of.
    ids: int32 [length], special tokens included. spans: int32 [length, 2], (0, 0) for special tokens.
    kept: bool [length], the tokens whose states are rows; at least one.
    """

    text: int
    ids: np.ndarray
    spans: np.ndarray
    kept: np.ndarray


class Cutter:
    """Cuts texts into pieces, with a `tokenizers.Tokenizer` that neither truncates nor pads.

    length: most tokens of a piece, special ones included; None where there is no bound.

    A longer text is cut into windows, each a quarter over the last. Of the tokens that two windows share, each window
    keeps the half nearer to its middle, so every token of the text is one row, with context on both sides. Rows are
    the tokens that are no punctuation; all of them in a text of nothing else; the first special token (or token 0)
    for an empty text: a text has at least one row.
    """

    def __init__(self, tokenizer: Any, length: int | None) -> None:
        marks = tokenizer.encode("a", add_special_tokens=True)
        first = marks.special_tokens_mask.index(0)
        last = len(marks.ids) - marks.special_tokens_mask[::-1].index(0)
        self._tokenizer = tokenizer
        self._before, self._after = marks.ids[:first], marks.ids[last:]
        self._size = max(length - first - len(self._after), 1) if length is not None else None
        self._skipped = np.array(sorted(punctuation_ids(tokenizer.get_vocab())), np.int32)

    def pieces(self, texts: Sequence[str]) -> Iterator[Piece]:
        """The pieces of `texts`, in order."""
        for number, coded in enumerate(self._tokenizer.encode_batch(list(texts), add_special_tokens=False)):
            ids = np.array(coded.ids, np.int32)
            spans = np.array(coded.offsets, np.int32).reshape(-1, 2)
            yield from self._pieces(number, ids, spans) if len(ids) else self._empty(number)

    def _pieces(self, number: int, ids: np.ndarray, spans: np.ndarray) -> Iterator[Piece]:
        wanted = ~np.isin(ids, self._skipped)
        if not wanted.any():
            wanted[:] = True
        for window, kept in _windows(len(ids), self._size):
            own = np.zeros(len(ids), bool)
            own[kept] = wanted[kept]
            if own.any():
                yield self._piece(number, ids[window], spans[window], own[window])

    def _piece(self, number: int, ids: np.ndarray, spans: np.ndarray, kept: np.ndarray) -> Piece:
        edges = (len(self._before), len(self._after))
        return Piece(
            number,
            np.concatenate([np.array(self._before, np.int32), ids, np.array(self._after, np.int32)]),
            np.pad(spans, (edges, (0, 0))),
            np.pad(kept, edges),
        )

    def _empty(self, number: int) -> Iterator[Piece]:
        ids = np.array([*self._before, *self._after] or [0], np.int32)
        yield Piece(number, ids, np.zeros((len(ids), 2), np.int32), np.arange(len(ids)) == 0)


def punctuation_ids(vocabulary: Mapping[str, int]) -> set[int]:
    """Ids of the tokens that are punctuation and nothing else: ColBERT's skip list (ASCII), and Unicode's class P.

    >>> sorted(punctuation_ids({"a": 0, ".": 1, "##!": 2, "…": 3, "a.": 4, "[SEP]": 5, "$": 6, "▁": 7}))
    [1, 2, 3, 6]
    """
    bare = ((token.strip(_WORD_MARKS).removeprefix("##"), id_) for token, id_ in vocabulary.items())
    return {id_ for token, id_ in bare if token and all(map(_is_punctuation, token))}


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def _windows(tokens: int, size: int | None) -> Iterator[tuple[slice, slice]]:
    """Windows of `size` over `tokens`, and the part of the text that each keeps; the parts are all of it, once."""
    if size is None or tokens <= size:
        yield slice(0, tokens), slice(0, tokens)
        return
    overlap = int(size * _OVERLAP)
    for start in range(0, tokens - overlap, size - overlap):
        first = start + overlap // 2 if start else 0
        end = start + size
        last = end - overlap + overlap // 2 if end < tokens else tokens
        yield slice(start, min(end, tokens)), slice(first, last)
