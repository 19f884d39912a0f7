"""What goes through an encoder at once: windows of texts that are too long, and batches of rows of like length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

_OVERLAP = 0.25
_LEAST_WINDOW = 0.25


class Window(NamedTuple):
    """Tokens begin to end are read together, those from first to last are kept; the kept ones are all, once."""

    begin: int
    end: int
    first: int
    last: int


def windows(begin: int, end: int, size: int, starts: Sequence[int] | np.ndarray) -> Iterator[Window]:
    """Windows of at most `size` tokens over the tokens `begin` to `end`, none where there are none.

    starts: tokens that begin a sentence, rising. A window ends before the last of them that it reaches. Where none
    lies in its last three quarters, the next window is laid a quarter over it, and each keeps the half of the shared
    tokens that is nearer to its middle.

    >>> [tuple(window) for window in windows(0, 10, 4, [0, 3, 7])]
    [(0, 3, 0, 3), (3, 7, 3, 7), (7, 10, 7, 10)]
    """
    first = begin
    while end - begin > size:
        reach = begin + size
        place = int(np.searchsorted(starts, reach, side="right")) - 1
        cut = int(starts[place]) if place >= 0 else begin
        if cut > max(first, begin + int(size * _LEAST_WINDOW)):
            yield Window(begin, cut, first, cut)
            begin = first = cut
        else:
            overlap = int(size * _OVERLAP)
            yield Window(begin, reach, first, reach - overlap // 2)
            begin, first = reach - overlap, reach - overlap // 2
    if begin < end:
        yield Window(begin, end, first, end)


def batches(lengths: np.ndarray, most_tokens: int, most_padding: float) -> Iterator[np.ndarray]:
    """Places of rows that are read together, the longest first.

    lengths: tokens of each row, [rows]. most_tokens: of a batch with its padding; a longer row goes alone.
    most_padding: share of a batch that may be padding.

    >>> [batch.tolist() for batch in batches(np.array([3, 10, 9, 2]), 100, 0.15)]
    [[1, 2], [0], [3]]
    """
    order = np.argsort(-lengths, kind="stable")
    begin = filled = 0
    for place, length in enumerate(lengths[order].tolist()):
        area = (place - begin + 1) * int(lengths[order[begin]])
        if place > begin and (area > most_tokens or area - filled - length > most_padding * area):
            yield order[begin:place]
            begin, filled = place, 0
        filled += length
    if len(order):
        yield order[begin:]
