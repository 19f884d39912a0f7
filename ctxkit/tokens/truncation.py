"""The longest beginning or end of a text that fits a number of tokens, never cut inside a grapheme cluster."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

from ctxkit.errors import BudgetError
from ctxkit.protocols import Counter
from ctxkit.tokens.graphemes import cluster_starts

Keep = Literal["start", "end"]

_STEP_CHARS = 1_024
_WHOLE_CHARS = 8_192  # an answer up to here is searched with whole recounts alone
_GROWTH = 8
_ROUNDS = 4
_AHEAD_CLUSTERS, _AHEAD_TOKENS = 32, 8
_WORD_GAP = re.compile(r"(?<=\w)(?= \w)")  # tokenizers cut here, whatever follows


def truncate(text: str, max_tokens: int, counter: Counter, *, keep: Keep = "start") -> str:
    """The longest beginning (`keep="end"`: end) of `text` of at most `max_tokens` tokens, as `counter` recounts it.

    The cut lies between two extended grapheme clusters. Counts are not monotone (one more character can complete a
    token), so longer cuts are tried until their counts are 8 tokens too high or 32 clusters have been tried. A text is
    read about as far as it is kept, and what is kept is tokenised about twice. More than 8,192 characters are counted
    in pieces that end between words, then recounted; a run that long without any words may be cut a little short.

    Raises BudgetError where `max_tokens` is negative or `keep` is unknown.

    >>> from ctxkit.tokens import EstimatingCounter
    >>> truncate("The quick brown fox jumps over the lazy dog.", 4, EstimatingCounter())
    'The quick brown fox'
    """
    if max_tokens < 0:
        raise BudgetError(f"`max_tokens` must be 0 or more, got {max_tokens!r}")
    if keep not in get_args(Keep):
        raise BudgetError(f"`keep` must be 'start' or 'end', got {keep!r}")
    if max_tokens == 0 or not text:
        return ""
    search = _Search(_Side(text, keep == "end"), max_tokens, counter)
    return search.side.between(0, search.longest())


@dataclass(frozen=True, slots=True)
class _Side:
    """A text seen from the side that is kept: offset 0 is there, whichever side it is."""

    text: str
    from_end: bool

    def __len__(self) -> int:
        return len(self.text)

    def between(self, start: int, stop: int) -> str:
        size = len(self.text)
        return self.text[size - stop : size - start] if self.from_end else self.text[start:stop]

    def cuts(self, start: int, stop: int) -> list[int]:
        """Offsets in [start, stop] between clusters, in order."""
        size = len(self.text)
        if self.from_end:
            return [size - cut for cut in reversed(cluster_starts(self.text, size - stop, size - start))]
        return cluster_starts(self.text, start, stop)

    def word_gap(self, start: int, stop: int) -> int:
        """The last offset in the second half of (start, stop] that lies between two words; else `stop`."""
        size, half = len(self.text), (start + stop + 1) // 2
        span = (size - stop, size - half) if self.from_end else (half, stop)
        gaps = (match.start() for match in _WORD_GAP.finditer(self.text, *span))
        if self.from_end:
            return size - next(gaps, size - stop)
        return max(gaps, default=stop)


class _Search:
    """Finds the cut.

    Tokens of the first n chars are estimated as those of a base, whose tokens are known, and of what follows it. Where
    the only base is the empty text, an estimate is a recount.
    """

    def __init__(self, side: _Side, max_tokens: int, counter: Counter) -> None:
        self.side, self.max_tokens, self.counter = side, max_tokens, counter
        self._bases = [(0, 0)]  # (chars, tokens), shortest first
        self._known: dict[int, int] = {}

    def longest(self) -> int:
        """Chars kept; what is kept has been recounted whole."""
        low, high = self._climb()
        if high <= _WHOLE_CHARS:
            self._bases = [(0, 0)]
        cut = self._search(low, high)
        for _ in range(_ROUNDS):
            error = self._recount(cut) - self._estimate(cut)
            if error == 0:
                return cut
            self._bases = [(0, 0), *((chars, tokens + error) for chars, tokens in self._bases[1:])]
            self._known.clear()
            cut = self._search(cut, cut)
        return self._step_back(cut)

    def _climb(self) -> tuple[int, int]:
        """Puts bases up to shortly before the cut. Returns where to look: the last base, and a length too long."""
        step, smallest = min(4 * _STEP_CHARS, max(64, 4 * self.max_tokens)), _STEP_CHARS
        while True:
            chars, tokens = self._bases[-1]
            if chars == len(self.side):
                return chars, chars
            stop = self._stop(chars, step)
            more = self.counter.count(self.side.between(chars, stop))
            if tokens + more <= self.max_tokens:
                self._bases.append((stop, tokens + more))
                step = self._next_step(step)
            elif stop - chars <= smallest:
                return chars, stop
            else:
                step = max(smallest, step // 4)

    def _stop(self, chars: int, step: int) -> int:
        end = min(chars + step, len(self.side))
        return end if end == len(self.side) else self.side.word_gap(chars, end)

    def _next_step(self, step: int) -> int:
        """Nine tenths of what the tokens left will hold, if the text goes on as it was."""
        chars, tokens = self._bases[-1]
        guess = (self.max_tokens - tokens) * chars * 9 // (10 * max(tokens, 1))
        return max(_STEP_CHARS, min(guess, _GROWTH * step))

    def _search(self, low: int, high: int) -> int:
        """The last cut that fits, looked for from [low, high] outwards."""
        while True:
            cuts = self.side.cuts(low, high)
            if cuts and self._estimate(cuts[0]) > self.max_tokens:
                low, high = max(low - _STEP_CHARS, 0), cuts[0]
            elif high < len(self.side) and (not cuts or self._estimate(cuts[-1]) <= self.max_tokens):
                low, high = cuts[-1] if cuts else low, min(high + _STEP_CHARS, len(self.side))
            elif cuts:
                return self._look_ahead(cuts[bisect_right(cuts, self.max_tokens, key=self._estimate) - 1])

    def _look_ahead(self, cut: int) -> int:
        """A longer cut that fits although shorter ones do not."""
        best = cut
        for longer in islice(self.side.cuts(cut + 1, min(cut + _STEP_CHARS, len(self.side))), _AHEAD_CLUSTERS):
            tokens = self._estimate(longer)
            if tokens <= self.max_tokens:
                best = longer
            elif tokens > self.max_tokens + _AHEAD_TOKENS:
                break
        return best if best == cut else self._look_ahead(best)

    def _step_back(self, cut: int) -> int:
        while self._recount(cut) > self.max_tokens:
            cut = self.side.cuts(max(cut - _STEP_CHARS, 0), cut - 1)[-1]
        return cut

    def _estimate(self, chars: int) -> int:
        if chars not in self._known:
            base, tokens = max(entry for entry in self._bases if entry[0] <= chars)
            self._known[chars] = tokens + self.counter.count(self.side.between(base, chars))
        return self._known[chars]

    def _recount(self, chars: int) -> int:
        return self.counter.count(self.side.between(0, chars))
