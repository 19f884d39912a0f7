"""A plan in words: its tables add up and keep their shape, and what they claim of other windows is true."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from ctxkit import Budget, Level, Part, Plan, fit, fit_messages, passage, question, system, turn
from ctxkit.context import counterfactual, report
from ctxkit.context.group import Group
from ctxkit.context.level import LevelRequest
from ctxkit.errors import CtxkitError
from ctxkit.testing import WhitespaceCounter

COUNTER = WhitespaceCounter(overhead_per_message=0, prompt_overhead=0)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=90)


def words(n: int, word: str = "word") -> str:
    return " ".join([word] * n)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Up to 40 parts under any budget; some pinned, some worthless, some with names that nobody should choose."""
    names = draw(st.lists(NAMES, min_size=1, max_size=40, unique=True))
    parts = [
        Part(
            draw(st.sampled_from(["passage", "memory", "turn"])),
            words(draw(st.integers(1, 20))),
            id=name,
            source=draw(st.one_of(st.just(""), NAMES)),
            relevance=draw(st.sampled_from([0.0, 0.2, 0.9])),
            role="",
        )
        if draw(st.booleans())
        else turn("user", words(draw(st.integers(1, 20))), id=name, pinned=draw(st.booleans()))
        for name in names
        if name not in ("template", "tools")
    ]
    assume(parts)
    try:
        return fit(parts, budget=Budget(draw(st.integers(11, 400)), 10), counter=COUNTER)
    except CtxkitError:
        assume(False)
        raise


def conversation(rounds: int = 12) -> list[dict[str, Any]]:
    """A user asks for a gauge again and again; each reading is a long log."""
    chat: list[dict[str, Any]] = [{"role": "system", "content": "You watch rivers."}]
    for i in range(rounds):
        call = {"id": f"c{i}", "type": "function", "function": {"name": "gauge", "arguments": "{}"}}
        log = "\n".join(f"day {day} level {200 + day} cm, flow {900 + day} of river {i}" for day in range(40))
        chat += [
            {"role": "user", "content": f"Question {i}: {words(30)}"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"c{i}", "content": log},
            {"role": "assistant", "content": f"Answer {i}. {words(12)}"},
        ]
    return [*chat, {"role": "user", "content": "And now?"}]


class FirstLines:
    """Keeps the first 20 or 4 lines of each tool result."""

    def levels(self, group: Group, request: LevelRequest) -> Iterator[Level]:
        for lines, utility in ((20, 0.7), (4, 0.3)):
            cut = [
                replace(part, content="\n".join(part.content.splitlines()[:lines]), message=None)
                if part.kind == "tool_result"
                else part
                for part in group.parts
            ]
            if any(part.kind == "tool_result" for part in cut):
                yield Level("head", tuple(cut), utility, "first lines")


def reduced_plan(window: int = 1400) -> Plan:
    budget = Budget(window, 200)
    return fit_messages(conversation(), budget=budget, counter=WhitespaceCounter(), compressors=[FirstLines()])


def long_plan(parts: int = 16_000, window: int = 3_000) -> Plan:
    given = [system("Answer."), *[turn("user", words(1 + i % 30), id=f"t{i}") for i in range(parts - 2)], question("?")]
    return fit(given, budget=Budget(window, 100), counter=WhitespaceCounter())


def printed(plan: Plan, width: int, terminal: bool = True) -> list[str]:
    shown = io.StringIO()
    Console(file=shown, force_terminal=terminal, color_system=None, width=width).print(plan)
    return shown.getvalue().splitlines()


# --- the rows -------------------------------------------------------------------------------------------------------


@given(plans(), st.integers(-1, 50))
def test_the_rows_of_any_plan_add_up_to_its_tokens_shortened_or_not(plan: Plan, most: int) -> None:
    rows = report.rows(plan, most)
    assert sum(row.tokens for row in rows) == plan.prompt_tokens
    assert sum(row.decision is not None for row in rows) == min(len(plan.decisions), max(most, 1))
    listed = [row.decision for row in rows if row.decision is not None]
    assert listed == [decision for decision in plan.decisions if decision in listed], "the order is the plan's"


@given(plans())
def test_a_part_is_one_line_whatever_it_is_called(plan: Plan) -> None:
    head, *lines = str(plan).split("\n")
    assert head == report.headline(plan)
    assert len(lines) == len(str(plan).splitlines()) - 1 == len(report.rows(plan))
    assert str(plan).replace("\n", "").isprintable()


@given(plans(), st.sampled_from([60, 80, 120]), st.booleans())
def test_no_line_is_wider_than_the_terminal(plan: Plan, width: int, terminal: bool) -> None:
    lines = printed(plan, width, terminal)
    assert all(cell_len(line) <= width for line in lines)
    assert not any("\x1b" in line for line in lines)


def test_of_a_long_plan_the_largest_are_listed_and_the_rest_is_summed() -> None:
    plan = long_plan()
    lines = str(plan).splitlines()
    assert len(lines) == 1 + report.MOST_ROWS + 2  # head, parts, rest, template
    assert sum(row.tokens for row in report.rows(plan)) == plan.prompt_tokens
    rest = lines[-2]
    assert re.search(r"\.\.\. and 15,800 more +[\d,]+  ", rest)
    assert sum(int(found.replace(",", "")) for found in re.findall(r"([\d,]+) (?:kept|dropped)", rest)) == 15_800
    listed = [row.decision for row in report.rows(plan) if row.decision]
    assert {"system-1", "question-1"} <= {decision.part.id for decision in listed}, "pinned parts are always listed"
    dropped = [decision for decision in listed if not decision.kept]
    assert dropped and min(d.full_tokens for d in dropped) >= sorted(d.full_tokens for d in plan.dropped)[-len(dropped)]


def test_all_that_is_kept_is_listed_where_there_is_room_for_it() -> None:
    plan = long_plan(parts=2_000, window=500)
    listed = {row.decision.part.id for row in report.rows(plan) if row.decision}
    assert {decision.part.id for decision in plan.kept} <= listed
    assert len(plan.kept) < report.MOST_ROWS


def test_a_reduced_part_shows_the_share_that_is_left_of_it() -> None:
    plan = reduced_plan()
    shares = [report.level_of(decision) for decision in plan.decisions if report.is_reduced(decision)]
    assert shares and all(re.fullmatch(r"\S+ \d{1,2}%", level) for level in shares)
    assert all(level in str(plan) for level in shares)
    whole = next(decision for decision in plan.kept if decision.level == "full")
    assert report.level_of(whole) == "full"
    assert report.why(next(filter(report.is_reduced, plan.kept))).split(";")[0].endswith("tokens")


def test_names_lose_their_beginning_and_never_their_end() -> None:
    source = "docs/a/folder/with/a/name/that/goes/on/and/on/without/any/end/in/sight/budget.md:10-24"
    plan = fit([passage("x", source=source)], budget=Budget(200), counter=WhitespaceCounter())
    for lines in (printed(plan, 80), printed(plan, 120), str(plan).splitlines()):
        assert sum("budget.md:10-24 " in line for line in lines) == 1
    assert source not in str(plan), "one long name does not push the columns of all others away"


def test_repairs_are_told_in_every_form() -> None:
    chat = [{"role": "tool", "tool_call_id": "<gone>", "content": "x"}, {"role": "user", "content": "?"}]
    plan = fit_messages(chat, budget=Budget(500), counter=WhitespaceCounter())
    assert len(plan.repairs) == 1 and f"repaired: {plan.repairs[0]}" in str(plan)
    assert any(line.startswith("repaired: message 0") for line in printed(plan, 120))
    assert html.escape(plan.repairs[0]) in plan._repr_html_() and "1 repair of" in plan._repr_html_()
    assert plan.replan(window_tokens=400).repairs == plan.repairs, "the same conversation, the same repairs"


def test_many_repairs_are_counted() -> None:
    chat = [{"role": "tool", "tool_call_id": f"{i}", "content": "x"} for i in range(30)]
    chat.append({"role": "user", "content": "?"})
    plan = fit_messages(chat, budget=Budget(5_000), counter=WhitespaceCounter())
    assert str(plan).splitlines()[-1] == f"repaired: ... and {len(plan.repairs) - 10:,} more"


# --- HTML -----------------------------------------------------------------------------------------------------------


@given(plans())
def test_names_in_html_are_text_and_nothing_else(plan: Plan) -> None:
    page = plan._repr_html_()
    tags = set(re.findall(r"<(/?[a-z]+)", page))
    assert tags <= {"div", "/div", "table", "/table", "tr", "/tr", "th", "/th", "td", "/td", "span", "/span"}
    assert re.sub(r"<[^<>]*>", "", page).count("<") == 0
    assert page.count("<tr") == page.count("</tr>") == len(report.rows(plan)) + 1


@given(plans())
def test_the_pieces_of_the_bar_fill_the_window(plan: Plan) -> None:
    bar = plan._repr_html_().partition("<table")[0]
    shares = [float(share) for share in re.findall(r'style="width:([\d.]+)%', bar)]
    assert sum(shares) == pytest.approx(100, abs=0.001 * len(shares))


def test_quotes_in_a_name_do_not_end_an_attribute() -> None:
    name = '" onmouseover="alert(1)'
    page = fit([turn("user", "x", id=name)], budget=Budget(50), counter=WhitespaceCounter())._repr_html_()
    assert name not in page and "&quot; onmouseover=&quot;alert(1) (turn): full" in page


def test_html_shows_what_is_reduced_fades_what_is_dropped_and_says_why() -> None:
    plan = reduced_plan()
    page = plan._repr_html_()
    bar, _, table = page.partition("<table")
    assert "repeating-linear-gradient(45deg,#e8590c" in bar, "a reduced tool result is hatched in its own colour"
    shares = [report.level_of(decision) for decision in plan.kept if report.is_reduced(decision)]
    assert shares and all(f"{level}<div" in table for level in shares), "its share is drawn below the level"
    dropping = fit(
        [passage(words(9), id="in"), passage(words(9), id="out", relevance=0.1)],
        budget=Budget(20),
        counter=WhitespaceCounter(),
    )
    row = next(row for row in dropping._repr_html_().split("<tr ") if "out (passage)" in row)
    assert "opacity:.6" in row
    assert f'title="out (passage): dropped, 0 of 10 tokens; {dropping.decision("out").reason}' in row


def test_html_of_a_long_plan_is_short() -> None:
    page = long_plan(parts=5_000)._repr_html_()
    assert page.count("<tr") == 1 + report.MOST_ROWS + 2
    assert "... and 4,800 more" in page


# --- why not, and what more would buy -------------------------------------------------------------------------------


def window_in(line: str) -> int:
    return int(line.split("at a window of ")[1].split()[0].replace(",", ""))


@pytest.mark.parametrize("window", [1400, 2600, 4000])
def test_the_window_at_which_a_reduced_part_is_whole_is_true(window: int) -> None:
    plan = reduced_plan(window)
    reduced = [decision for decision in plan.kept if report.is_reduced(decision)][-3:]
    assert reduced
    for decision in reduced:
        told = plan.why_not(decision.part.id)
        assert f"{decision.level}, {decision.tokens:,} of {decision.full_tokens:,} tokens" in told
        assert plan.replan(window_tokens=window_in(told)).decision(decision.part.id).level == "full"


def test_windows_that_were_tried_for_one_part_serve_the_next() -> None:
    plan = reduced_plan()
    windows = counterfactual.Windows(plan)
    found = [decision for decision in plan.kept if report.is_reduced(decision)]
    for decision in found:
        window = counterfactual.entry_window(plan, decision, windows)
        assert window is not None and windows.levels(window)[decision.part.id] == "full"
    assert len(windows.seen) < 8 * len(found)


def test_what_would_have_to_go_is_named_but_not_the_part_itself() -> None:
    plan = reduced_plan(2600)
    reduced = next(decision for decision in reversed(plan.kept) if report.is_reduced(decision))
    told = plan.why_not(reduced.part.id)
    gone = re.search(r"to have it whole, (.*) would have to be reduced;", told)
    assert gone and reduced.part.id not in gone[1]
    instead = plan.replan(require=[reduced.part.id])
    assert instead.decision(reduced.part.id).level == "full"
    for name in re.findall(r"m\d+", gone[1]):
        assert instead.decision(name).tokens < plan.decision(name).tokens


def test_an_explanation_says_how_good_the_choice_is_and_what_more_would_buy() -> None:
    plan = reduced_plan()
    lines = counterfactual.explained(plan)
    assert lines[0].startswith(("No choice is worth more", "At most "))
    assert f"{plan.value:.4g}" in lines[0]
    assert lines[1] == f"One more token would buy about {plan.shadow_price:.2g} of value."
    changed = plan.with_more(1_000)
    assert lines[2].startswith("+1,000 tokens would ") and lines[2].endswith(f"({changed.tokens:+,} prompt tokens).")
    assert all(name in lines[2] for name in (*changed.entered, *changed.changed, *changed.left)[:8])
    assert lines[3].startswith("A window of 2,048 tokens would ")


def test_everything_missing_is_explained_the_most_valuable_first() -> None:
    worths = {"a": 0.2, "b": 0.9, "c": 0.5, "d": 0.7}
    parts = [passage(words(20 if name != "b" else 60), id=name, relevance=worth) for name, worth in worths.items()]
    plan = fit(parts, budget=Budget(45), counter=WhitespaceCounter())
    lines = counterfactual.explained(plan)
    explained = [line.split(":")[0] for line in lines[4:]]
    assert explained == sorted((d.part.id for d in plan.dropped), key=lambda name: -worths[name])
    for name, line in zip(explained, lines[4:], strict=True):
        assert line.partition("; comes in")[0] == plan.why_not(name).partition("; comes in")[0]
        assert plan.replan(window_tokens=window_in(line)).decision(name).kept
    more = len(explained) - 1
    assert counterfactual.explained(plan, most=1)[-1] == f"... and {more} more dropped or reduced"


def test_a_call_and_its_result_are_explained_once() -> None:
    plan = fit_messages(conversation(), budget=Budget(500, 200), counter=WhitespaceCounter(), compressors=())
    lines = [line for line in counterfactual.explained(plan, most=99) if "dropped;" in line]
    calls = [line for line in lines if "; with it m" in line]
    names = [line.split(":")[0] for line in lines]
    names += [name for line in calls for name in line.partition("; with it ")[2].split(", ")]
    assert calls and sorted(names) == sorted(decision.part.id for decision in plan.dropped)


def test_a_value_that_only_the_utility_knows_decides_the_order() -> None:
    class Backwards:
        def values(self, groups: Sequence[Any]) -> list[float]:
            return [float(len(groups) - group.index) for group in groups]

    parts = [passage(words(30), id=name, relevance=(i + 1) / 10) for i, name in enumerate("abcdef")]
    plan = fit(parts, budget=Budget(40), counter=WhitespaceCounter(), utility=Backwards())
    assert plan.worth["a"] > plan.worth["f"]
    explained = [line.split(":")[0] for line in counterfactual.explained(plan)[4:]]
    assert explained == ["b", "c", "d", "e", "f"]


def test_where_everything_is_in_there_is_nothing_to_explain() -> None:
    plan = fit([turn("user", "x")], budget=Budget(100), counter=WhitespaceCounter())
    assert counterfactual.explained(plan) == [
        f"No choice is worth more: this one has value {plan.value:.4g}, all that can be reached.",
        "Every part is in whole: more tokens would change nothing.",
    ]


@given(plans())
@settings(max_examples=30)
def test_any_plan_can_be_explained_in_single_lines(plan: Plan) -> None:
    for line in counterfactual.explained(plan, most=2):
        assert line and line.isprintable()


@given(st.lists(NAMES, max_size=30), st.integers(1, 10))
def test_a_list_of_names_says_how_many_it_leaves_out(names: list[str], most: int) -> None:
    told = report.listed(names, most)
    assert told.isprintable()
    assert told.endswith(f" and {len(names) - most:,} more") == (len(names) > most) or " more" in names[-1]


def test_a_diff_of_thousands_is_one_short_line() -> None:
    small = long_plan(window=500)
    told = report.changes(small.replan(window_tokens=20_000).diff(small))
    assert told.startswith("entered: ") and "more" in told and len(told) < 300
    assert report.changes(small.diff(small)) == "same parts (+0 tokens)"
