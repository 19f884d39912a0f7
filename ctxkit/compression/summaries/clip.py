"""Clipping: the beginning of a text that holds a cap, ended where a sentence ends if that costs little."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ctxkit.compression.text.segment import cut_points, sentence_ends

ELLIPSIS = "…"
"""Ends a text that was cut inside a sentence."""

_LEAST_SHARE = 0.5  # of what whole words would keep; "Sure!" and a long second sentence are not cut to "Sure!"


def clipped(text: str, fits: Callable[[str], bool]) -> str | None:
    """The longest beginning that fits, of whole sentences or lines; of whole words and "…" where those keep much more.

    text: without white space at its ends. None where not one word fits.

    >>> clipped("It rains. It pours all day.", lambda text: len(text) <= 12)
    'It rains.'
    >>> clipped("Rain and nothing but rain", lambda text: len(text) <= 12)
    'Rain and…'
    """
    if fits(text):
        return text
    words = _longest(text, cut_points(text, 0, len(text)), ELLIPSIS, fits)
    sentences = _longest(text, sentence_ends(text), "", fits)
    if sentences is None or words is not None and len(sentences) < _LEAST_SHARE * len(words):
        return words
    return sentences


def finished(text: str) -> str:
    """A text that was cut off anywhere, `clipped` to before its unfinished sentence or word.

    >>> finished("It rains. It pours. It st"), finished("It rains."), finished("Rain and noth")
    ('It rains. It pours.', 'It rains.', 'Rain and…')
    """
    if sentence_ends(text)[-1:] == [len(text)]:
        return text
    return clipped(text, lambda shorter: shorter != text and len(shorter) <= len(text)) or text


def _longest(text: str, ends: Sequence[int], mark: str, fits: Callable[[str], bool]) -> str | None:
    """The longest beginning up to one of `ends` that fits together with `mark`."""
    low, high, best = 0, len(ends), None
    while low < high:
        middle = (low + high) // 2
        shorter = text[: ends[middle]].rstrip() + mark
        if fits(shorter):
            best, low = shorter, middle + 1
        else:
            high = middle
    return best
