"""When a shortened history was worth its rewriting: the formula against two bills, added up turn by turn."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxkit.session import CachePrices, break_even_turns

PRICES = st.builds(
    lambda read, more: CachePrices(read=read, write=read + more),
    st.sampled_from([0.0, 0.01, 0.1, 0.25, 1.0]),
    st.sampled_from([0.0, 0.15, 0.9, 1.15]),
)


@st.composite
def rewriting(draw: st.DrawFn) -> tuple[int, int, int]:
    """History, position of the first change, and tokens saved, which stand behind it."""
    history = draw(st.integers(1, 5_000))
    position = draw(st.integers(0, history))
    return history, position, draw(st.integers(0, history - position))


def bill_of_keeping(history: int, turns: int, prices: CachePrices) -> float:
    return sum(prices.read * history for _ in range(turns))


def bill_of_rewriting(history: int, position: int, saved: int, turns: int, prices: CachePrices) -> float:
    shorter = history - saved
    total = 0.0
    for turn in range(turns):
        known = position if turn == 0 else shorter
        total += prices.read * known + prices.write * (shorter - known)
    return total


@given(rewriting(), PRICES, st.integers(1, 60))
def test_rewriting_is_cheaper_from_the_break_even_on_and_not_before(
    case: tuple[int, int, int], prices: CachePrices, turns: int
) -> None:
    history, position, saved = case
    pays = break_even_turns(history, position, saved, prices)
    gain = bill_of_keeping(history, turns, prices) - bill_of_rewriting(history, position, saved, turns, prices)
    if turns > pays + 1e-6:
        assert gain > -1e-6
    elif turns < pays - 1e-6:
        assert gain < 1e-6


@given(rewriting(), st.integers(0, 500))
def test_the_later_the_change_and_the_more_is_saved_the_sooner_it_pays(case: tuple[int, int, int], more: int) -> None:
    history, position, saved = case
    prices = CachePrices()
    pays = break_even_turns(history, position, saved, prices)
    assert break_even_turns(history, min(position + more, history), saved, prices) <= pays
    assert break_even_turns(history, position, saved + more, prices) <= pays


def test_what_saves_nothing_never_pays() -> None:
    assert break_even_turns(100, 50, 0, CachePrices()) == math.inf
    assert break_even_turns(100, 50, -3, CachePrices()) == math.inf


def test_a_cache_that_is_read_for_nothing_is_never_worth_a_rewriting() -> None:
    local = CachePrices(read=0.0, write=1.0)
    assert break_even_turns(1_000, 10, 900, local) == math.inf
    assert break_even_turns(1_000, 900, 100, local) == 0.0, "only the end is cut off: nothing is written"


@pytest.mark.parametrize("price", [-0.1, math.nan, math.inf])
def test_broken_prices_and_positions_are_refused(price: float) -> None:
    with pytest.raises(ValueError, match="`read`"):
        CachePrices(read=price)
    with pytest.raises(ValueError, match="`write`"):
        CachePrices(write=price)
    with pytest.raises(ValueError, match="`position`"):
        break_even_turns(10, 11, 1, CachePrices())
