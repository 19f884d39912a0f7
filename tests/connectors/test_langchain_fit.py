"""fit_messages for LangChain."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool

from ctxkit.context import Budget
from ctxkit.context.chat import openai_problems
from ctxkit.errors import BudgetError, BudgetInfeasible
from ctxkit.testing import WhitespaceCounter
from ctxkit.tokens import EstimatingCounter
from ctxkit_connectors.langchain import OpenAIForm, fit_messages

TASK = "Find the invoice with number 7 and tell me its total."


def words(messages: list[BaseMessage]) -> int:
    calls = sum(len(str(call["args"]).split()) for m in messages if isinstance(m, AIMessage) for call in m.tool_calls)
    return sum(3 + len(message.text.split()) for message in messages) + calls


def a_round(number: int, *, arguments: int = 1, answer: int = 1) -> list[BaseMessage]:
    call_id, args = f"c{number}", {"query": " ".join(["word"] * arguments)}
    call = {"id": call_id, "name": "look", "args": args, "type": "tool_call"}
    text = "\n".join(f"line {line} of answer {number}" for line in range(answer))
    return [AIMessage("", tool_calls=[call], id=f"a{number}"), ToolMessage(text, tool_call_id=call_id, id=f"t{number}")]


def loop(rounds: int, **sizes: int) -> list[BaseMessage]:
    chat = [SystemMessage("Answer briefly."), HumanMessage(TASK, id="task")]
    return [*chat, *(message for number in range(rounds) for message in a_round(number, **sizes))]


def check(sent: list[BaseMessage], given: list[BaseMessage], max_tokens: int) -> None:
    assert words(sent) <= max_tokens
    assert openai_problems(OpenAIForm(sent).dicts, prefill=True) == ()
    ids = [message.id for message in given]
    places = [ids.index(message.id) for message in sent if message.id]
    assert places == sorted(places)


COUNTERS = [words, WhitespaceCounter(overhead_per_message=3, prompt_overhead=0), EstimatingCounter()]


@pytest.mark.parametrize("counter", COUNTERS, ids=["function", "exact", "estimate"])
@pytest.mark.parametrize("max_tokens", [300, 500, 2000])
def test_an_agent_loop_keeps_task_and_last_round(counter, max_tokens):  # acceptance case 5
    chat = loop(30, answer=10)
    sent = fit_messages(chat, max_tokens=max_tokens, token_counter=counter)
    check(sent, chat, max_tokens)
    assert sent[0] is chat[0] and chat[1] in sent
    assert [message.id for message in sent[-2:]] == ["a29", "t29"]


def test_a_system_prompt_over_the_budget_is_refused():  # acceptance case 1
    with pytest.raises(BudgetInfeasible) as refused:
        fit_messages([SystemMessage("word " * 500), HumanMessage("hi")], max_tokens=100, token_counter=words)
    assert refused.value.minimum == 507


@pytest.mark.parametrize("max_tokens", range(20, 150, 10))
def test_no_budget_tears_a_round(max_tokens):  # acceptance case 2
    chat = [*loop(1, arguments=100), AIMessage("done"), HumanMessage("thanks")]
    check(fit_messages(chat, max_tokens=max_tokens, token_counter=words), chat, max_tokens)


@pytest.mark.parametrize("order", [[0, 1, 2, 4, 5], [0, 1, 2, 4, 3], [0, 1, 2, 4, 3, 4, 5, 5]])
def test_broken_rounds_are_repaired(order):  # acceptance cases 3 and 4
    chat = loop(2)
    sent = fit_messages([chat[place] for place in order], max_tokens=500, token_counter=words)
    assert openai_problems(OpenAIForm(sent).dicts) == ()


def test_a_giant_last_result_is_reduced_and_keeps_its_pair():  # acceptance case 6
    chat = loop(2, answer=4000)
    sent = fit_messages(chat, max_tokens=500, token_counter=words)
    check(sent, chat, 500)
    assert (sent[-1].id, sent[-1].tool_call_id) == ("t1", "c1")  # type: ignore[union-attr]
    assert 20 < len(sent[-1].text.split()) < 500
    assert len(chat[-1].text.split()) == 20_000, "the message of the caller is not touched"


def test_long_arguments_are_counted_and_reduced():  # acceptance case 8
    chat = loop(20, arguments=2000)
    sent = fit_messages(chat, max_tokens=1000, token_counter=words)
    check(sent, chat, 1000)
    last = sent[-2]
    assert isinstance(last, AIMessage) and last.id == "a19" and last.tool_calls[0]["args"].keys() == {"query"}


def test_tool_schemas_are_counted():  # acceptance case 9
    @tool(description="word " * 2000)
    def look(query: str) -> str:
        return query

    with pytest.raises(BudgetInfeasible) as refused:
        fit_messages([HumanMessage("hi")], max_tokens=500, token_counter=words, tools=[look])
    assert 2000 < refused.value.minimum < 2100
    search = {"type": "web_search_20250305", "name": "web_search"}
    assert fit_messages([HumanMessage("hi")], max_tokens=500, token_counter=words, tools=[search, {"type": "shell"}])


@pytest.mark.parametrize("max_tokens", range(12, 60, 4))
def test_no_text_is_cut_inside_a_grapheme(max_tokens):  # acceptance case 12
    family = "👩‍👩‍👧‍👦"
    chat = [HumanMessage("old " + f"{family} नमस्ते 天 " * 30), AIMessage("yes"), HumanMessage("go")]
    sent = fit_messages(chat, max_tokens=max_tokens, token_counter=words)
    for message in sent:
        assert "\ufffd" not in message.text
        assert message.text.count("\u200d") == 3 * message.text.count(family)


def test_system_prompt_and_what_is_whole_are_the_same_objects():  # acceptance case 15
    chat: list[BaseMessage] = [SystemMessage("Answer briefly.", id="s")]
    for number in range(30):
        chat += [HumanMessage(f"question {number} " * 20), AIMessage(f"answer {number} " * 20)]
    chat.append(HumanMessage("and now?"))
    sent = fit_messages(chat, max_tokens=600, token_counter=words)
    assert sent[0] is chat[0] and sent[-1] is chat[-1]
    assert any(message is other for message in sent[1:-1] for other in chat)


def test_the_budget_is_said_once():
    chat: list[Any] = [("human", "hi")]
    assert fit_messages(chat, budget=Budget(100, 20), token_counter=words) == [HumanMessage("hi")]
    assert fit_messages([], max_tokens=9, token_counter=words) == []
    with pytest.raises(BudgetError, match="either `max_tokens` or `budget`"):
        fit_messages(chat, token_counter=words)
    with pytest.raises(BudgetError, match="either `max_tokens` or `budget`"):
        fit_messages(chat, max_tokens=9, budget=Budget(9), token_counter=words)
