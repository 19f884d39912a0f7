"""trim_messages for OpenAI's and Anthropic's plain messages."""

from __future__ import annotations

from typing import Any

import pytest

from ctxkit.context import Budget
from ctxkit.context.chat import anthropic_problems, openai_problems, to_anthropic
from ctxkit.errors import BudgetError, BudgetInfeasible, PartError
from ctxkit.testing import WhitespaceCounter
from ctxkit.tokens import messages_from_dicts
from ctxkit_connectors import anthropic, openai

COUNTER = WhitespaceCounter(prompt_overhead=0)
TASK = "Find the invoice with number 7."
SYSTEM = "Answer briefly."
Message = dict[str, Any]


def a_round(number: int, *, arguments: int = 1, answer: int = 10) -> list[Message]:
    query = " ".join(["word"] * arguments)
    function = {"name": "look", "arguments": f'{{"query": "{query}"}}'}
    text = "\n".join(f"line {line} of answer {number}" for line in range(answer))
    return [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": f"c{number}", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": f"c{number}", "content": text},
    ]


def loop(rounds: int, **sizes: int) -> list[Message]:
    chat: list[Message] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": TASK}]
    return [*chat, *(message for number in range(rounds) for message in a_round(number, **sizes))]


def tokens(messages: list[Message], **options: Any) -> int:
    return COUNTER.render(messages_from_dicts(messages), **options).tokens


def test_an_agent_loop_keeps_task_and_last_round():  # acceptance case 5
    chat = loop(30)
    sent = openai.trim_messages(chat, max_tokens=500, counter=COUNTER)
    assert tokens(sent) <= 500 and openai_problems(sent) == ()
    assert sent[:2] == chat[:2] and sent[-1]["tool_call_id"] == "c29"


def test_anthropics_form_goes_in_and_comes_out():
    system, chat = to_anthropic(loop(30))
    sent_system, sent = anthropic.trim_messages(chat, system=system, max_tokens=500, counter=COUNTER)
    assert sent_system == SYSTEM and anthropic_problems(sent) == ()
    assert sent[0] == {"role": "user", "content": TASK}
    assert sent[-1]["content"][0]["tool_use_id"] == "c29"
    assert anthropic.trim_messages(chat, system=system, max_tokens=50_000, counter=COUNTER) == (system, chat)


def test_a_system_prompt_over_the_budget_is_refused():  # acceptance case 1
    big = "word " * 500
    with pytest.raises(BudgetInfeasible):
        openai.trim_messages(
            [{"role": "system", "content": big}, {"role": "user", "content": "hi"}], max_tokens=100, counter=COUNTER
        )
    with pytest.raises(BudgetInfeasible):
        anthropic.trim_messages([{"role": "user", "content": "hi"}], system=big, max_tokens=100, counter=COUNTER)


@pytest.mark.parametrize("max_tokens", range(25, 160, 15))
def test_no_budget_tears_a_round(max_tokens):  # acceptance case 2
    chat = [*loop(1, arguments=100), {"role": "assistant", "content": "done"}, {"role": "user", "content": "thanks"}]
    sent = openai.trim_messages(chat, max_tokens=max_tokens, counter=COUNTER)
    assert tokens(sent) <= max_tokens and openai_problems(sent) == ()
    system, given = to_anthropic(chat)
    assert (
        anthropic_problems(anthropic.trim_messages(given, system=system, max_tokens=max_tokens, counter=COUNTER)[1])
        == ()
    )


@pytest.mark.parametrize("order", [[0, 1, 2, 5, 3, 4], [0, 1, 2, 4, 3], [0, 1, 2, 4, 3, 4, 5, 5]])
def test_broken_rounds_are_repaired(order):  # acceptance cases 3 and 4
    chat = loop(2)
    sent = openai.trim_messages([chat[place] for place in order], max_tokens=500, counter=COUNTER)
    assert openai_problems(sent) == ()


def test_a_giant_last_result_is_reduced_and_keeps_its_pair():  # acceptance case 6
    sent = openai.trim_messages(loop(2, answer=4000), max_tokens=500, counter=COUNTER)
    assert tokens(sent) <= 500 and sent[-1]["tool_call_id"] == "c1" and "line 0 of answer 1" in sent[-1]["content"]


def test_long_arguments_are_counted_and_reduced():  # acceptance case 8
    sent = openai.trim_messages(loop(20, arguments=2000), max_tokens=1000, counter=COUNTER)
    assert tokens(sent) <= 1000 and sent[-2]["tool_calls"][0]["id"] == "c19"


def test_tool_schemas_are_counted_in_either_form():  # acceptance case 9
    schema = {"type": "object", "properties": {}}
    function = {"name": "look", "description": "word " * 2000, "parameters": schema}
    chat = [{"role": "user", "content": "hi"}]
    tool = {"type": "function", "function": function}
    with pytest.raises(BudgetInfeasible) as by_openai:
        openai.trim_messages(chat, max_tokens=500, counter=COUNTER, tools=[tool])
    named = {"name": "look", "description": "word " * 2000, "input_schema": schema}
    with pytest.raises(BudgetInfeasible) as by_anthropic:
        anthropic.trim_messages(chat, max_tokens=500, counter=COUNTER, tools=[named])
    assert by_openai.value.minimum == by_anthropic.value.minimum > 2000
    hosted = {"type": "web_search_20250305", "name": "web_search"}
    assert anthropic.trim_messages(chat, max_tokens=50, counter=COUNTER, tools=[hosted]) == ("", chat)


def test_the_system_prompt_is_the_same_byte_for_byte():  # acceptance case 15
    system = [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}]
    chat: list[Message] = []
    for number in range(30):
        chat.append({"role": "user", "content": f"question {number} " * 20})
        chat.append({"role": "assistant", "content": f"answer {number} " * 20})
    chat.append({"role": "user", "content": "and now?"})
    sent_system, sent = anthropic.trim_messages(chat, system=system, max_tokens=600, counter=COUNTER)
    assert sent_system == system and sent[-1] == chat[-1] and 1 < len(sent) < len(chat)


def test_a_conversation_without_a_user_cannot_be_sent_to_anthropic():
    with pytest.raises(PartError, match="no valid prompt for Anthropic's API"):
        anthropic.trim_messages([{"role": "assistant", "content": "hi"}], max_tokens=50, counter=COUNTER)


def test_nothing_in_nothing_out_and_the_budget_is_said_once():
    assert openai.trim_messages([], max_tokens=9, counter=COUNTER) == []
    assert anthropic.trim_messages([], max_tokens=9, counter=COUNTER) == ("", [])
    with pytest.raises(BudgetError, match="either `max_tokens` or `budget`"):
        openai.trim_messages([], max_tokens=9, budget=Budget(9), counter=COUNTER)
