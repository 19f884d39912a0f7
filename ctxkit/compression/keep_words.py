"""Words of a text as units to keep or drop, and what can be said of them without a model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import regex

_LETTER = r"[\p{L}\p{N}\p{M}_]"
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_SPACED = rf"(?:(?![{_UNSPACED}]){_LETTER})"
_SIGN = r"[\p{Sc}#@/~.+\-−±]"
_WORD = regex.compile(
    rf"\s*(?:[{_UNSPACED}]\p{{M}}*"  # a character of a script without spaces
    rf"|(?:{_SIGN}*(?={_SPACED})){_SPACED}+(?:[^\s\p{{L}}\p{{N}}\p{{M}}_—…]{{1,3}}{_SPACED}+)*[%°]?"  # $4.5 a-b x@y.z
    r"|[^\s\p{L}\p{N}\p{M}_]+|\S)"
)

_SHAPES: tuple[Callable[[str], bool], ...] = (
    lambda word: any(map(str.isdigit, word)),
    lambda word: word.lstrip()[:1].isupper(),
    lambda word: len(word.strip()) > 1 and word.isupper(),
    lambda word: not any(map(str.isalnum, word)),
    lambda word: word[:1].isspace(),
)
SHAPES = len(_SHAPES)
"""Columns of `word_shapes`."""


def word_bounds(text: str) -> np.ndarray:
    """Char offsets [words + 1] of the words of `text`: word i is text[b[i]:b[i + 1]], and together they are the text.

    A word takes the white space before it; punctuation at its end is a word of its own, inside it is not, and neither
    is a sign before it. [0] for the empty text.

    >>> text = "Up 23–16, $4.5 million."
    >>> bounds = word_bounds(text)
    >>> [text[a:b] for a, b in zip(bounds, bounds[1:])]
    ['Up', ' 23–16', ',', ' $4.5', ' million', '.']
    """
    starts = [match.start() for match in _WORD.finditer(text)]
    if not text:
        return np.zeros(1, np.int64)
    return np.array([0, *starts[1:], len(text)], np.int64)


def word_shapes(text: str, bounds: np.ndarray) -> np.ndarray:
    """float32 [words, SHAPES], 0 or 1: has a digit, a capital first, capitals only, no letter or digit, a space before.

    bounds: `word_bounds(text)`. An encoder that folds capitals does not see these.
    """
    words = [text[start:end] for start, end in zip(bounds, bounds[1:], strict=False)]
    known = {word: [shape(word) for shape in _SHAPES] for word in set(words)}
    return np.array([known[word] for word in words], np.float32).reshape(-1, SHAPES)


def words_of_tokens(bounds: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The number of the word that each token stands in, int64 [tokens].

    bounds: `word_bounds(text)`. starts: char offset at which each token begins, [tokens].
    """
    return np.searchsorted(bounds, starts, side="right").astype(np.int64) - 1


def pooled(states: np.ndarray, words: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean state of each word's tokens, float32 [count, dims], and how many it has, int64 [count].

    states: [tokens, dims], special tokens left out. words: number of the word of each token, ascending, [tokens].
    count: words of the text. A word without a token (white space, control characters) has the state 0.
    """
    pieces = np.bincount(words, minlength=count)
    means = np.zeros((count, states.shape[1]), np.float32)
    present = np.flatnonzero(pieces)
    if len(present):
        firsts = np.concatenate([[0], np.cumsum(pieces[present])[:-1]])
        means[present] = np.add.reduceat(states, firsts, axis=0, dtype=np.float32) / pieces[present, None]
    return means, pieces
