"""What `fit` does on small cases that can be checked by hand."""

from __future__ import annotations

import pytest

import ctxkit
from ctxkit import Budget, BudgetInfeasible, fit, passage, question, system, turn
from ctxkit.errors import BudgetError, PartError
from ctxkit.testing import WhitespaceCounter


def words(n: int, word: str = "word") -> str:
    return " ".join([word] * n)


def counter() -> WhitespaceCounter:
    return WhitespaceCounter(overhead_per_message=0, prompt_overhead=0)


def test_a_system_prompt_over_the_budget_is_refused_by_name_and_number() -> None:
    parts = [system(words(500), id="rules"), turn("user", "hi", pinned=True)]
    with pytest.raises(BudgetInfeasible, match=r"`rules` 500.*Raise `window_tokens` to 501") as refusal:
        fit(parts, budget=Budget(100), counter=counter())
    assert refusal.value.minimum == 501
    assert refusal.value.by_part["rules"] == 500


def test_the_reserve_is_never_given_away() -> None:
    parts = [system(words(5)), *[passage(words(8)) for _ in range(10)]]
    plan = fit(parts, budget=Budget(50, reserve_tokens=20), counter=counter())
    assert plan.prompt_tokens == 5 + 2 * 9  # a passage and its number
    assert plan.free_tokens == 30 - 23


def test_relevance_per_token_decides() -> None:
    parts = [
        passage(words(20), id="long", relevance=0.5),
        passage(words(4), id="short", relevance=0.4),
        passage(words(4), id="weak", relevance=0.1),
    ]
    plan = fit(parts, budget=Budget(10), counter=counter())
    assert [decision.part.id for decision in plan.kept] == ["short", "weak"]


def test_priority_outweighs_relevance() -> None:
    parts = [passage(words(4), id="a", relevance=0.5), passage(words(4), id="b", relevance=0.4, priority=2)]
    plan = fit(parts, budget=Budget(5), counter=counter())
    assert [decision.part.id for decision in plan.kept] == ["b"]


def test_a_cap_binds_its_kind_and_leaves_the_rest_to_others() -> None:
    parts = [
        *[passage(words(9), relevance=0.9) for _ in range(5)],
        *[turn("user", words(9), relevance=0.1) for _ in range(5)],
    ]
    plan = fit(parts, budget=Budget(80, caps={"passage": 20}), counter=counter())
    kinds = [decision.part.kind for decision in plan.kept]
    assert kinds.count("passage") == 2
    assert kinds.count("turn") == 5
    assert all("left of the cap of 'passage' (20)" in decision.reason for decision in plan.dropped)
    assert all(decision.enters_at is None for decision in plan.dropped), "no window lets them past the cap"


def test_a_floor_is_kept_for_its_kind_before_others_compete() -> None:
    parts = [
        *[passage(words(9), relevance=0.9) for _ in range(5)],
        *[turn("user", words(9), relevance=0.1) for _ in range(5)],
    ]
    plan = fit(parts, budget=Budget(40, floors={"turn": 18}), counter=counter())
    kinds = [decision.part.kind for decision in plan.kept]
    assert kinds.count("turn") == 2
    assert kinds.count("passage") == 2


def test_passages_are_numbered_as_they_stand_and_share_the_question_s_message() -> None:
    parts = [system("Rules."), passage("one", title="A"), passage("two"), question("What?")]
    plan = fit(parts, budget=Budget(100), counter=counter())
    assert plan.to_messages() == [
        {"role": "system", "content": "Rules."},
        {"role": "user", "content": "[1] A\none\n\n[2]\ntwo\n\nWhat?"},
    ]
    assert {number: part.content for number, part in plan.passages.items()} == {1: "one", 2: "two"}


def test_turns_keep_their_own_messages() -> None:
    parts = [turn("user", "a"), turn("user", "b"), turn("assistant", "c"), question("d")]
    roles = [message.role for message in fit(parts, budget=Budget(100), counter=counter()).messages]
    assert roles == ["user", "user", "assistant", "user"]


def test_why_not_names_the_window_at_which_a_part_comes_in() -> None:
    parts = [passage(words(9), id="in", relevance=0.9), passage(words(9), id="out", relevance=0.5)]
    plan = fit(parts, budget=Budget(15), counter=counter())
    assert "to admit it, in would have to go; comes in at a window of 20 tokens (+5)" in plan.why_not("out")
    assert "is in the prompt" in plan.why_not("in")
    assert {d.part.id for d in fit(parts, budget=Budget(20), counter=counter()).kept} == {"in", "out"}


def test_diff_names_what_came_and_went() -> None:
    parts = [passage(words(9), id="a", relevance=0.9), passage(words(4), id="b", relevance=0.2)]
    small = fit(parts, budget=Budget(5), counter=counter())
    large = fit(parts, budget=Budget(10), counter=counter())
    difference = large.diff(small)
    assert (difference.entered, difference.left, difference.tokens) == (("a",), ("b",), 5)
    assert str(small.diff(small)) == "same parts (+0 tokens)"


def test_a_result_without_a_call_and_a_call_without_a_result_are_refused() -> None:
    call = ctxkit.tool_call([{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}])
    with pytest.raises(PartError, match="answers call 'c2'"):
        fit([ctxkit.tool_result("c2", "x")], budget=Budget(50), counter=counter())
    with pytest.raises(PartError, match="has no tool result"):
        fit([call, turn("user", "x")], budget=Budget(50), counter=counter())


def test_a_round_joins_the_group_that_one_of_its_parts_names() -> None:
    call = ctxkit.tool_call([{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}])
    parts = [call, ctxkit.tool_result("c", "x", group="g"), turn("user", "y", group="g", pinned=True)]
    plan = fit(parts, budget=Budget(100), counter=counter())
    assert not plan.dropped
    assert "same group as a pinned part" in plan.why("tool_call-1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window_tokens": 0}, "`window_tokens` must be at least 1, got 0"),
        ({"window_tokens": 8192, "reserve_tokens": 8192}, r"\(8,192\) leaves nothing of `window_tokens` \(8,192\)"),
        ({"window_tokens": 100, "reserve_tokens": 200}, r"\(200\) leaves nothing of `window_tokens` \(100\)"),
        ({"window_tokens": 100, "reserve_tokens": -1}, "0 or more, got -1"),
        ({"window_tokens": 100, "floors": {"passage": 150}}, "promise 150 tokens of 100"),
        (
            {"window_tokens": 100, "floors": {"turn": 50}, "caps": {"turn": 40}},
            r"floor of 'turn' \(50\) is above its cap",
        ),
        ({"window_tokens": 100, "caps": {"chapter": 50}}, "'chapter', which is not a kind"),
    ],
)
def test_a_budget_that_contradicts_itself_says_both_numbers(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        Budget(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "at least one part"),
        (["text"], "item 0 is a str"),
        ([passage("a", id="x"), passage("b", id="x")], "same id 'x'"),
        ([passage("a", relevance=0.0)], "relevance 0"),
    ],
)
def test_malformed_parts_are_refused(parts: list[object], message: str) -> None:
    with pytest.raises(PartError, match=message):
        fit(parts, budget=Budget(100), counter=counter())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ctxkit.Part("chapter", "x"),  # type: ignore[arg-type]
        lambda: passage("x", relevance=1.5),
        lambda: passage("x", priority=0),
        lambda: passage("x", priority=float("nan")),
        lambda: passage(None),  # type: ignore[arg-type]
        lambda: turn("robot", "x"),
        lambda: ctxkit.Part("passage", "x", role="assistant"),
        lambda: ctxkit.Part("tool_call", "x"),
        lambda: ctxkit.Part("turn", "x", tool_call_id="1"),
    ],
)
def test_a_malformed_part_is_refused_when_it_is_made(make: object) -> None:
    with pytest.raises(PartError):
        make()  # type: ignore[operator]


def test_the_html_is_escaped_and_its_numbers_are_the_plan_s() -> None:
    parts = [system("<b>", id="<script>alert(1)</script>"), passage("x y z", relevance=0.5), question("q")]
    plan = fit(parts, budget=Budget(100, 10), counter=counter())
    page = plan._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert f"{plan.prompt_tokens:,} of 90 prompt tokens" in page
    assert str(plan.prompt_tokens) in repr(plan)
    assert sum(tokens for _, tokens in plan.charges()) == plan.prompt_tokens


def test_of_ten_thousand_parts_none_is_counted_twice() -> None:
    class Counting(WhitespaceCounter):
        seen = 0

        def count_batch(self, texts):  # type: ignore[no-untyped-def]
            self.seen += len(texts)
            return super().count_batch(texts)

    counting = Counting()
    parts = [turn("user" if i % 2 == 0 else "assistant", f"message {i}", relevance=0.5) for i in range(10_000)]
    plan = fit(parts, budget=Budget(2_000, 100), counter=counting)
    assert 0 < counting.seen <= 10_100, "each text once at most, and a sample of whole texts"
    assert plan.prompt_tokens > 0.95 * plan.budget.prompt_tokens


def test_parts_worth_less_than_the_least_value_stay_out_though_they_fit() -> None:
    parts = [passage("a", id="a", relevance=0.5), passage("b", id="b", relevance=0.01), question("q")]
    plan = fit(parts, budget=Budget(100), counter=counter(), least_value=0.1)
    assert [decision.part.id for decision in plan.kept] == ["a", "question-1"]
    assert plan.why("b") == "b: dropped; value 0.01, less than the least asked for (0.1)"
    with pytest.raises(PartError, match="worth less than `least_value`"):
        fit(parts[:2], budget=Budget(100), counter=counter(), least_value=1.0)
