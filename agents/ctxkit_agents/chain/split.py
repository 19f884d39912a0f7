"""Splits a text into the fewest chunks that each fit, of about even size, between sentences wherever that can be."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from ctxkit.compression.text.segment import divided
from ctxkit.errors import BudgetError
from ctxkit.protocols import Counter

Bounds = Sequence[int]
"""Rising offsets at which a text may be cut, its beginning and its end included."""

_PER_CHUNK = 8  # pieces that a longer sentence is cut into for each chunk it fills, so that chunks can be even
_ROUNDS = 8  # counts of one chunk; three do in practice


def split(text: str, bounds: Bounds, room_tokens: int, counter: Counter) -> list[int]:
    """Offsets 0 = b[0] < ... < b[n] = len(text), so that each text[b[i]:b[i + 1]] has at most `room_tokens` tokens.

    A piece between two bounds that is longer alone is cut at white space, or else between grapheme clusters. Each
    chunk is counted whole; n is what filling one chunk after the other needs, and then the chunks are evened out.

    Raises BudgetError where a single grapheme cluster is longer than the room.
    """
    fine = _finer(text, bounds, room_tokens, counter)
    atoms = _Atoms(text, fine, counter)
    filled = atoms.filled(room_tokens)
    even = atoms.even(len(filled) - 1)
    return even if all(atoms.size(*chunk) <= room_tokens for chunk in pairwise(even)) else filled


class _Atoms:
    """Pieces that fit alone. Tokens of several are estimated by their sum, and counted exactly before that counts."""

    def __init__(self, text: str, bounds: Bounds, counter: Counter) -> None:
        self.text, self.bounds, self.counter = text, bounds, counter
        counts = counter.count_batch([text[start:end] for start, end in pairwise(bounds)])
        self.sums = list(accumulate(counts, initial=0))
        self._sizes: dict[tuple[int, int], int] = {}

    def size(self, start: int, end: int) -> int:
        """Tokens of the text between two offsets."""
        if (start, end) not in self._sizes:
            self._sizes[start, end] = self.counter.count(self.text[start:end])
        return self._sizes[start, end]

    def filled(self, room: int) -> list[int]:
        """One chunk after the other, each as long as it can be."""
        at, edges = 0, [0]
        while at < len(self.bounds) - 1:
            at = self._farthest(at, room)
            edges.append(self.bounds[at])
        return edges

    def _farthest(self, first: int, room: int) -> int:
        """The last bound at which a chunk from bound `first` may end. A single piece fits."""
        best = first + 1
        last = max(best, self._beyond(first, room))
        for _ in range(_ROUNDS):
            left = room - self.size(self.bounds[first], self.bounds[last])
            best = max(best, last) if left >= 0 else best
            found = self._beyond(last, left)
            if found == last or (left < 0 and found <= best):
                break
            last = found
        return best

    def _beyond(self, bound: int, tokens: int) -> int:
        """The last bound that is at most `tokens` behind this one, by the sums; before it where they are negative."""
        return max(bisect_right(self.sums, self.sums[bound] + tokens) - 1, 1)

    def even(self, chunks: int) -> list[int]:
        """So many chunks, cut at the bounds that are nearest to even sizes."""
        count, total = len(self.bounds) - 1, self.sums[-1]
        cuts = [0]
        for number in range(1, chunks):
            wanted = total * number / chunks
            after = bisect_left(self.sums, wanted)
            near = after if self.sums[after] - wanted <= wanted - self.sums[max(after - 1, 0)] else after - 1
            cuts.append(min(max(near, cuts[-1] + 1), count - (chunks - number)))
        return [self.bounds[cut] for cut in [*cuts, count]]


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int
    end: int
    tokens: int


def _finer(text: str, bounds: Bounds, room: int, counter: Counter) -> list[int]:
    """The bounds, with more of them inside pieces that are longer than the room."""
    edges: set[int] = set(bounds)
    for piece in _pieces(text, bounds, counter.count_batch):
        if piece.tokens > room:
            edges.update(_cut(text, piece, room, counter))
    return sorted(edges)


def _pieces(text: str, bounds: Bounds, count: Callable[[Sequence[str]], list[int]]) -> list[_Piece]:
    counts = count([text[start:end] for start, end in pairwise(bounds)])
    return [_Piece(start, end, tokens) for (start, end), tokens in zip(pairwise(bounds), counts, strict=True)]


def _cut(text: str, piece: _Piece, room: int, counter: Counter) -> list[int]:
    longest = max(1, (piece.end - piece.start) * room // (piece.tokens * _PER_CHUNK))
    while True:
        written = text[piece.start : piece.end]
        inner, _ = divided(written, [0, len(written)], longest)
        bounds = [piece.start + at for at in inner]
        over = [one for one in _pieces(text, bounds, counter.count_batch) if one.tokens > room]
        if not over:
            return bounds
        if longest == 1:
            raise BudgetError(
                f"{text[over[0].start : over[0].end]!r} alone has {over[0].tokens:,} tokens, and a worker has room for "
                f"{room:,}; give the workers a larger window"
            )
        longest //= 2
