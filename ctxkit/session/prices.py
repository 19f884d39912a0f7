"""What a provider's prompt cache makes of a rewritten history: prices, and when shortening one pays."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CachePrices:
    """Prices relative to an input token that no cache knows.

    read: of a token that is found in the cache. write: of a token that is computed and stored.

    A provider is no more than its two numbers: `CachePrices(read=0.1, write=1.25)` where the cache must be asked for,
    `CachePrices(read=0.25, write=1.0)` where it is filled without being asked, `CachePrices(read=0.0, write=1.0)` for
    the KV cache of a local model. Raises ValueError for a price that is negative or no number.
    """

    read: float = 0.1
    write: float = 1.25

    def __post_init__(self) -> None:
        for name, price in (("read", self.read), ("write", self.write)):
            if not (math.isfinite(price) and price >= 0):
                raise ValueError(f"`{name}` must be a finite price of 0 or more, got {price!r}")


def break_even_turns(history_tokens: int, position: int, saved_tokens: int, prices: CachePrices) -> float:
    """The number of turns T after which a shortened history was worth its rewriting; it pays for more than T turns.

    history_tokens: H, what is cached. position: p, tokens before the first change, read from the cache as before.
    saved_tokens: S, by how much the history gets shorter.

    Left alone, T turns read H tokens each. Rewritten, the first turn reads p and writes the H - p - S that are left
    behind the change, and every later one reads H - S. The two are equal at T = (w - r)(H - p - S) / (r S).
    Infinite where nothing is saved, or where reading costs nothing and writing does; 0.0 where nothing is rewritten.

    1,000 tokens, the last 500 of them made 100 (p = 500, S = 400) at read 0.1 and write 1.1: 100 tokens are written
    for 1.0 each more than reading them, and every turn saves 400 reads of 0.1.

    >>> break_even_turns(1_000, 500, 400, CachePrices(read=0.1, write=1.1))
    2.5
    >>> break_even_turns(1_000, 600, 400, CachePrices()), break_even_turns(1_000, 0, 0, CachePrices())
    (0.0, inf)

    Raises ValueError unless 0 <= position <= history_tokens.
    """
    if not 0 <= position <= history_tokens:
        raise ValueError(f"`position` must be in [0, {history_tokens:,}], the history's tokens; got {position!r}")
    if saved_tokens <= 0:
        return math.inf
    cost = (prices.write - prices.read) * max(history_tokens - position - saved_tokens, 0)
    if cost <= 0:
        return 0.0
    return cost / (prices.read * saved_tokens) if prices.read > 0 else math.inf
