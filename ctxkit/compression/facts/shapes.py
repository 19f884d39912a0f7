"""What can be said of words without a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

_SHAPES: tuple[Callable[[str], bool], ...] = (
    lambda word: any(map(str.isdigit, word)),
    lambda word: word.lstrip()[:1].isupper(),
    lambda word: len(word.strip()) > 1 and word.isupper(),
    lambda word: not any(map(str.isalnum, word)),
    lambda word: word[:1].isspace(),
)
SHAPES = len(_SHAPES)
"""Columns of `word_shapes`."""


def word_shapes(spaced: Sequence[str]) -> np.ndarray:
    """float32 [words, SHAPES], 0 or 1: has a digit, a capital first, capitals only, no letter or digit, a space before.

    spaced: the words with the white space before them. An encoder that folds capitals does not see these.

    >>> word_shapes(["In", " NATO", ","]).astype(int).tolist()
    [[0, 1, 0, 0, 0], [0, 1, 1, 0, 1], [0, 0, 0, 1, 0]]
    """
    known = {word: [shape(word) for shape in _SHAPES] for word in set(spaced)}
    return np.array([known[word] for word in spaced], np.float32).reshape(-1, SHAPES)
