"""The cases that other libraries get wrong, each with a hard budget and a conversation that a provider takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from ctxkit import Budget, BudgetInfeasible, Plan, fit_messages
from ctxkit.compression import SummaryCompressor
from ctxkit.context.chat import anthropic_problems, openai_problems, to_anthropic
from ctxkit.protocols import Counter
from ctxkit.testing import ScriptedModel, WhitespaceCounter
from ctxkit.tokens import FixedCost
from tests.session.messages import Message, answer, calls, result, system, tool_round, user, words


def planned(messages: list[Message], window: int, counter: Counter | None = None, **more: Any) -> Plan:
    """The plan, after the checks that every case makes."""
    counter = counter or WhitespaceCounter()
    plan = fit_messages(messages, budget=Budget(window + 20, 20), counter=counter, **more)
    sent = plan.to_messages()
    assert plan.prompt_tokens == counter.render(plan.messages, tools=plan.tools).tokens
    assert plan.prompt_tokens + 20 <= window + 20
    assert openai_problems(sent) == ()
    assert anthropic_problems(to_anthropic(sent)[1]) == ()
    for message in messages:
        if message["role"] == "system":
            assert message in sent, "a system message is sent as it was given"
    return plan


def test_a_system_prompt_larger_than_the_budget_is_refused_by_its_tokens_and_its_name() -> None:
    with pytest.raises(BudgetInfeasible, match=r"`m0` 500\b") as refusal:
        fit_messages([system(words(500)), user("hi")], budget=Budget(100), counter=WhitespaceCounter())
    assert refusal.value.by_part["m0"] == 500


@pytest.mark.parametrize("window", range(20, 151, 2))
def test_tool_pairs_stay_whole_at_every_budget(window: int) -> None:
    messages = [
        system(),
        user("one " * 6),
        *tool_round("a", words(30), json.dumps({"text": words(100)})),
        answer("done " * 5),
        user("two " * 4),
    ]
    try:
        planned(messages, window)
    except BudgetInfeasible as refusal:
        assert refusal.minimum > window + 20


def test_a_result_whose_call_was_cut_away_is_repaired_and_said() -> None:
    plan = planned(
        [system(), user("go"), calls(("b", "{}")), result("a", "from a"), result("b", "from b"), user("?")], 200
    )
    assert len(plan.repairs) == 1
    assert "3" in plan.repairs[0]
    assert "from b" in str(plan.to_messages())


def test_a_result_after_a_turn_of_the_user_and_a_call_id_used_again_are_paired_by_occurrence() -> None:
    messages = [
        user("first"),
        calls(("a", '{"n": 1}')),
        user("meanwhile"),
        result("a", "result one"),
        calls(("a", '{"n": 2}')),
        result("a", "result two"),
        user("last"),
    ]
    sent = planned(messages, 500).to_messages()
    tools = [
        (sent[i - 1]["tool_calls"][0]["function"]["arguments"], m["content"])
        for i, m in enumerate(sent)
        if m["role"] == "tool"
    ]
    assert tools == [('{"n": 1}', "result one"), ('{"n": 2}', "result two")]


def test_a_task_and_thirty_rounds_keep_the_task_verbatim_and_the_last_round() -> None:
    task = "Find out why the build fails: " + words(40)
    rounds = [message for i in range(30) for message in tool_round(f"c{i}", words(120, i), json.dumps({"n": i}))]
    plan = planned([system(), user(task), *rounds], 500)
    sent = plan.to_messages()
    assert user(task) in sent
    assert sent[-1]["role"] == "tool"
    assert sent[-1]["tool_call_id"] == "c29"
    assert plan.prompt_tokens >= 0.95 * 500


def test_a_last_result_forty_times_the_budget_is_reduced_and_its_call_kept() -> None:
    plan = planned([system(), user("What is wrong?"), *tool_round("a", words(20_000))], 500)
    sent = plan.to_messages()
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "tool"]
    assert plan.prompt_tokens >= 0.95 * 500
    decision = plan.decision("m3")
    assert decision.handle is not None
    assert plan.expand(decision.handle) == words(20_000)


def test_six_parallel_results_that_together_are_three_windows_fit_together() -> None:
    named = [f"c{i}" for i in range(6)]
    messages = [
        user("Compare."),
        calls(*[(n, "{}") for n in named]),
        *[result(n, words(400, i)) for i, n in enumerate(named)],
    ]
    sent = planned(messages, 800).to_messages()
    assert [message["tool_call_id"] for message in sent if message["role"] == "tool"] == named


def test_arguments_are_counted_and_reduced() -> None:
    rounds = [
        message
        for i in range(20)
        for message in tool_round(f"c{i}", "ok", json.dumps({"path": f"f{i}.py", "text": words(2_000, i)}))
    ]
    plan = planned([user("Write the files."), *rounds], 1_000)
    last = next(message for message in reversed(plan.to_messages()) if message.get("tool_calls"))
    arguments = json.loads(last["tool_calls"][0]["function"]["arguments"])
    assert arguments["path"] == "f19.py"
    assert len(arguments["text"].split()) < 1_000


def test_tool_schemas_are_counted() -> None:
    tool = {
        "type": "function",
        "function": {"name": "f", "description": words(2_000), "parameters": {"type": "object"}},
    }
    with pytest.raises(BudgetInfeasible, match="tools"):
        planned([user("hi")], 1_000, tools=[tool])
    assert planned([user("hi")], 3_000, tools=[tool]).tools_tokens > 2_000


def test_a_reduced_json_result_is_json_that_marks_what_vanished() -> None:
    row = {"id": 79, "path": "/srv/app/main.py", "ratio": 0.12500, "tags": ["a", "b"], "note": words(40)}
    rows = [{**row, "id": 1000 + i} for i in range(200)]
    plan = planned([user("Which rows?"), *tool_round("a", json.dumps({"rows": rows, "next": None}))], 600)
    content = plan.to_messages()[-1]["content"]
    reduced = json.loads(content)
    assert plan.decision("m2").level != "full"
    assert isinstance(reduced, dict)
    assert plan.expand("m2") == json.dumps({"rows": rows, "next": None})


def test_signed_thinking_is_never_edited() -> None:
    thinking = {"type": "thinking", "thinking": words(60), "signature": "sig=="}
    opened = {**calls(("a", "{}")), "content": [thinking]}
    for window in range(40, 400, 20):
        try:
            sent = planned([user("task"), opened, result("a", words(500))], window).to_messages()
        except BudgetInfeasible:
            continue
        assert opened in sent


def test_images_nested_in_a_tool_result_leave_a_stub_where_they_are_dropped() -> None:
    counter = WhitespaceCounter(media=FixedCost(300))
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    shown = [{"type": "text", "text": "The screen: " + words(20)}, image]
    messages = [user("Look."), *tool_round("a", "x"), user("And now?"), calls(("b", "{}")), result("b", shown)]
    whole = planned(messages, 600, counter)
    assert whole.decision("m5").tokens > 300
    assert result("b", shown) in whole.to_messages()
    reduced = planned(messages, 150, counter)
    assert "image" in str(reduced.to_messages()[-1]["content"])
    assert reduced.decision("m5").kept


def test_a_summariser_is_asked_with_the_task_though_the_task_is_far_away() -> None:
    model = ScriptedModel(["short summary"] * 100)
    task = "Find the leak in pool.py"
    rounds = [message for i in range(20) for message in tool_round(f"c{i}", words(400, i))]
    plan = planned([user(task), *rounds], 1_500, compressors=[SummaryCompressor(model)])
    assert "short summary" in str(plan.to_messages())
    assert all(task in prompt_text(prompt) for prompt in model.prompts)


def prompt_text(prompt: Any) -> str:
    return "\n".join(message.content for message in prompt.messages)


def test_nothing_is_replaced_by_something_longer() -> None:
    rounds = [message for i in range(40) for message in tool_round(f"c{i}", "ok")]
    plan = planned([user("task"), *rounds], 200)
    assert all(decision.level in ("full", "dropped") for decision in plan.decisions)


def test_the_input_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [system(), user("task"), *tool_round("a", words(900)), user("and?")]
    before = json.dumps(messages)
    planned(messages, 200)
    assert json.dumps(messages) == before


def test_what_fits_is_sent_byte_for_byte_as_it_was_given() -> None:
    messages: list[Mapping[str, Any]] = [
        {"role": "system", "content": "rules", "name": "ops"},
        {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}], "x": 1},
        {"role": "assistant", "content": "yes", "refusal": None},
        {"role": "user", "content": "go"},
    ]
    plan = fit_messages(messages, budget=Budget(100), counter=WhitespaceCounter())
    assert plan.to_messages() == messages


def test_a_reduced_message_keeps_its_name() -> None:
    messages = [{**user(words(400)), "name": "ada"}, answer("noted"), user("And?")]
    plan = planned(messages, 150)
    assert plan.decision("m0").level not in ("full", "dropped")
    assert plan.to_messages()[0]["name"] == "ada"
