"""The multiple-choice knapsack against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxkit.context import core
from ctxkit.context.knapsack import at_least, choose
from ctxkit.context.menu import Menu, Row

Rows = list[list[Row]]


@st.composite
def rows_of(draw: st.DrawFn, kinds: int) -> Rows:
    rows: Rows = []
    for _ in range(draw(st.integers(0, 6))):
        tokens = sorted(draw(st.lists(st.integers(0, 40), min_size=1, max_size=4, unique=True)))
        values = sorted(draw(st.lists(st.floats(0, 1), min_size=len(tokens), max_size=len(tokens))))
        limited = [tuple(draw(st.integers(0, n)) for _ in range(kinds)) for n in tokens]
        rows.append(list(zip(tokens, values, limited, strict=True)))
    return rows


def best_value(rows: Rows, capacity: int, caps: list[int]) -> float:
    def fits(choice: tuple[Row, ...]) -> bool:
        within = all(sum(row[2][kind] for row in choice) <= cap for kind, cap in enumerate(caps))
        return within and sum(row[0] for row in choice) <= capacity

    return max(sum(row[1] for row in choice) for choice in itertools.product(*rows) if fits(choice))


@pytest.mark.parametrize("kinds", [0, 1, 2])
@given(st.data())
def test_the_choice_is_the_best_one_and_its_bound_holds(kinds: int, data: st.DataObject) -> None:
    rows = data.draw(rows_of(kinds))
    capacity = sum(options[0][0] for options in rows) + data.draw(st.integers(0, 100))
    caps = [sum(options[0][2][kind] for options in rows) + data.draw(st.integers(0, 40)) for kind in range(kinds)]
    menu = Menu.of(rows, kinds)
    choice = choose(menu, capacity, np.array(caps, np.int64))
    best = best_value(rows, capacity, caps)
    assert list(menu.owner[choice.picks]) == list(range(len(rows))), "one option of each group"
    assert menu.tokens[choice.picks].sum() <= capacity
    assert (menu.limited[choice.picks].sum(axis=0) <= caps).all()
    assert choice.value >= best * (1 - 1e-5) - 1e-9
    assert choice.bound >= best - 1e-9
    assert choice.value <= choice.bound + 1e-12


@given(rows_of(0), st.integers(0, 100))
def test_with_few_states_the_bound_still_holds(rows: Rows, spare: int) -> None:
    capacity = sum(options[0][0] for options in rows) + spare
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "_STATES", 2)
        patch.setattr(core, "_WORK", 8)
        choice = choose(Menu.of(rows), capacity, np.zeros(0, np.int64))
    best = best_value(rows, capacity, [])
    assert choice.value <= best + 1e-9
    assert choice.bound >= best - 1e-9


@given(rows_of(0))
def test_with_room_for_everything_everything_is_taken_at_no_price(rows: Rows) -> None:
    menu = Menu.of(rows)
    choice = choose(menu, 10_000, np.zeros(0, np.int64))
    assert choice.value == pytest.approx(sum(max(row[1] for row in options) for options in rows))
    assert choice.shadow_price == 0.0


def test_a_floor_is_the_least_that_a_group_takes() -> None:
    rows: Rows = [[(0, 0.0, ()), (5, 0.1, ()), (9, 0.2, ())], [(0, 0.0, ()), (6, 9.0, ())]]
    menu = Menu.of(rows)
    choice = choose(at_least(menu, np.array([1, 3])), 8, np.zeros(0, np.int64))
    assert list(np.maximum(choice.picks, [1, 3])) == [1, 3]
    assert list(choose(menu, 8, np.zeros(0, np.int64)).picks) == [0, 4]
